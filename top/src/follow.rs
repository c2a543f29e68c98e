//! A row that is followed, as lines.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use crate::format::{clean, fit, width};
use crate::link::Followed;
use crate::theme::{BOLD, Theme};

/// Short values two in a line, then the long ones, then its second table.
pub fn lines(followed: &Followed, theme: &Theme, cells: usize) -> Vec<Line<'static>> {
    if followed.columns.is_empty() {
        return vec![Line::default(), Line::from(" It is not there any more.")];
    }
    let name_style = theme.colour(Color::Blue).patch(BOLD);
    let half = cells / 2;
    let names = followed
        .columns
        .iter()
        .filter(|(_, cell)| cell.is_some())
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or(0);
    let is_long = |name: &str, text: &str| {
        matches!(name, "sql" | "sql_preview" | "error_message" | "last_error" | "error")
            || text.contains('\n')
            || width(text) + names + 3 > half
    };
    let mut lines = Vec::new();
    let mut pair: Vec<Span> = Vec::new();
    let mut long = Vec::new();
    for (name, cell) in &followed.columns {
        let Some(text) = cell else { continue };
        let whole = if name.ends_with("_at") {
            without_fraction(text)
        } else {
            text.clone()
        };
        let text = &whole;
        if is_long(name, text) {
            long.push((name, text.clone()));
            continue;
        }
        let style = if name == "state" {
            theme.state(text)
        } else {
            Style::new()
        };
        pair.push(Span::styled(format!(" {} ", fit(name, names, false)), name_style));
        pair.push(Span::styled(
            fit(&clean(text), half.saturating_sub(names + 2), false),
            style,
        ));
        if pair.len() == 4 {
            lines.push(Line::from(std::mem::take(&mut pair)));
        }
    }
    if !pair.is_empty() {
        lines.push(Line::from(pair));
    }
    for (name, text) in long {
        lines.push(Line::from(Span::styled(format!(" {name}"), name_style)));
        let style = if name.contains("error") {
            theme.colour(Color::Red)
        } else {
            Style::new()
        };
        for line in text
            .lines()
            .flat_map(|line| wrap(&clean(line), cells.saturating_sub(3)))
        {
            lines.push(Line::from(Span::styled(format!("   {line}"), style)));
        }
    }
    if !followed.title.is_empty() {
        lines.push(Line::from(Span::styled(format!(" {}", followed.title), name_style)));
        lines.extend(second_table(followed, theme));
    }
    lines
}

fn second_table(followed: &Followed, theme: &Theme) -> Vec<Line<'static>> {
    if followed.rows.is_empty() {
        return vec![Line::from(Span::styled("   none", theme.dim()))];
    }
    let text =
        |row: &[Option<String>], n: usize| clean(row.get(n).and_then(|cell| cell.as_deref()).unwrap_or_default());
    let widths: Vec<usize> = followed
        .names
        .iter()
        .enumerate()
        .map(|(n, name)| {
            followed
                .rows
                .iter()
                .map(|row| width(&text(row, n)))
                .max()
                .unwrap_or(0)
                .max(name.len())
        })
        .collect();
    let mut lines = Vec::new();
    let names: Vec<_> = followed
        .names
        .iter()
        .zip(&widths)
        .map(|(name, cells)| fit(name, *cells, false))
        .collect();
    lines.push(Line::from(Span::styled(
        format!("   {}", names.join("  ")),
        Style::new().add_modifier(Modifier::UNDERLINED),
    )));
    for row in &followed.rows {
        let mut spans = vec![Span::raw("   ")];
        for (n, cells) in widths.iter().enumerate() {
            let text = text(row, n);
            let style = if followed.names[n] == "state" {
                theme.state(&text)
            } else {
                Style::new()
            };
            spans.push(Span::styled(fit(&text, *cells, false) + "  ", style));
        }
        lines.push(Line::from(spans));
    }
    lines
}

/// A time in whole seconds: its fraction is between a point and what is no digit.
fn without_fraction(time: &str) -> String {
    match time.split_once('.') {
        Some((whole, rest)) => whole.to_owned() + rest.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => time.to_owned(),
    }
}

/// A line in pieces of at most `cells` cells.
fn wrap(line: &str, cells: usize) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let (mut used, mut buffer) = (0, [0; 4]);
    for c in line.chars() {
        let wide = width(c.encode_utf8(&mut buffer));
        if used + wide > cells.max(2) {
            pieces.push(String::new());
            used = 0;
        }
        used += wide;
        if let Some(piece) = pieces.last_mut() {
            piece.push(c);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_cut() {
        assert_eq!(
            without_fraction("2026-11-28 19:26:54.31404+00"),
            "2026-11-28 19:26:54+00"
        );
        assert_eq!(without_fraction("infinity"), "infinity");
    }

    #[test]
    fn long_lines_are_wrapped() {
        assert_eq!(wrap("abcdef", 4), ["abcd", "ef"]);
        assert_eq!(wrap("日本語", 4), ["日本", "語"]);
        assert_eq!(wrap("", 4), [""]);
    }
}
