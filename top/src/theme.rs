//! The colours.

use ratatui::style::{Color, Modifier, Style};

/// The colours, or none.
pub struct Theme {
    colours: bool,
}

impl Theme {
    /// Without colours if `NO_COLOR` is set and not empty.
    pub fn from_environment() -> Self {
        Self {
            colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }

    /// No colours.
    pub fn plain() -> Self {
        Self { colours: false }
    }

    /// The colour as that of a text.
    pub fn colour(&self, colour: Color) -> Style {
        if self.colours {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    /// That of a state.
    pub fn state(&self, state: &str) -> Style {
        match state {
            "running" | "starting" => self.colour(Color::Green),
            "failed" | "error" | "timed_out" | "interrupted" => self.colour(Color::Red),
            "canceled" | "expired" | "paused" | "off" => self.colour(Color::Yellow),
            "waiting" | "deferred" | "blocked" => self.colour(Color::Cyan),
            _ => Style::new(),
        }
    }

    /// The older, the warmer.
    pub fn age(&self, seconds: f64) -> Style {
        match seconds {
            s if s >= 3600.0 => self.colour(Color::Red),
            s if s >= 60.0 => self.colour(Color::Yellow),
            s if s >= 0.0 => self.colour(Color::Green),
            _ => self.colour(Color::Cyan),
        }
    }

    /// For what is there, and does not matter.
    pub fn dim(&self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }
}

pub const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
pub const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);
