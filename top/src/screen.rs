//! The loop of the screen: it sleeps until a key, an answer, or the time of the next look.

use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;

use crate::app::{App, Effect};
use crate::connect::Connector;
use crate::data::Query;
use crate::draw::screen;
use crate::link::{self, Answer, Ask};
use crate::session::Session;
use crate::terminal;
use crate::theme::Theme;

enum Happening {
    Input(Event),
    Answer(Box<Answer>),
    /// A signal asks for the end, or there is no terminal any more.
    End,
    /// A signal asks for a stop.
    Stop,
    /// The program goes on after a stop.
    Continue,
    /// A thread that the screen needs has panicked.
    Broken,
}

/// Tells the screen when its thread panics.
struct Watched(Sender<Happening>);

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.send(Happening::Broken);
        }
    }
}

/// Starts a thread that tells the screen what happens.
fn spawn(happenings: &Sender<Happening>, work: impl FnOnce(&Sender<Happening>) + Send + 'static) {
    let watched = Watched(happenings.clone());
    std::thread::spawn(move || work(&watched.0));
}

/// Shows the screen until the user ends it.
pub fn run(query: Query, interval: Duration, connector: Connector, session: Session) -> Result<(), String> {
    if !std::io::stdout().is_terminal() {
        return Err("the output is no terminal: use --once or --json".to_owned());
    }
    let app = App::new(query, interval, connector.place());
    let (happenings, received) = channel();
    let (asks, asked) = channel();
    spawn(&happenings, move |happenings| {
        link::serve(&connector, session, &asked, &|answer| {
            happenings.send(Happening::Answer(Box::new(answer))).is_ok()
        });
    });
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGCONT])
        .map_err(|error| format!("could not wait for signals: {error}"))?;
    spawn(&happenings, move |happenings| {
        for signal in signals.forever() {
            let happening = match signal {
                SIGTSTP => Happening::Stop,
                SIGCONT => Happening::Continue,
                _ => Happening::End,
            };
            if happenings.send(happening).is_err() {
                return;
            }
        }
    });
    let mut terminal = ratatui::try_init().map_err(|error| format!("could not use the terminal: {error}"))?;
    spawn(&happenings, |happenings| {
        while let Ok(event) = event::read() {
            if happenings.send(Happening::Input(event)).is_err() {
                return;
            }
        }
        let _ = happenings.send(Happening::End);
    });
    let mut turns = Turns {
        app,
        asks,
        due: None,
        look_again: false,
    };
    let ended = turns.go_on(&mut terminal, &received);
    ratatui::restore();
    ended
}

struct Turns {
    app: App,
    asks: Sender<Ask>,
    /// When the next look is due; None while one is under way, the screen is frozen, or there is no connection.
    due: Option<Instant>,
    /// Whether a look is due as soon as none is under way.
    look_again: bool,
}

impl Turns {
    fn go_on(&mut self, terminal: &mut DefaultTerminal, received: &Receiver<Happening>) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("could not write to the terminal: {error}");
        let theme = Theme::from_environment();
        loop {
            let height = self.app.height;
            terminal
                .draw(|frame| screen(&mut self.app, &theme, frame))
                .map_err(failed)?;
            // Of a screen that grew, and for the first time, when the size is not known before.
            self.look_again |= self.app.height != height && self.app.page.is_some();
            let now = Instant::now();
            let idle = self.app.waiting.is_none() && self.app.lost.is_none();
            if idle && (self.look_again || self.due.is_some_and(|due| due <= now)) {
                self.look_again = false;
                self.due = None;
                self.app.waiting = Some(now);
                let _ = self.asks.send(Ask::Look(self.app.look()));
            }
            // The seconds without an answer are shown.
            let next = if self.app.waiting.is_some() || self.app.lost.is_some() {
                Some(now + Duration::from_secs(1))
            } else {
                self.due
            };
            let first = match next {
                Some(next) => received.recv_timeout(next.saturating_duration_since(now)),
                None => received.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let first = match first {
                Ok(happening) => happening,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            for happening in std::iter::once(first).chain(received.try_iter()) {
                match happening {
                    Happening::End => return Ok(()),
                    Happening::Broken => return Err("a thread of the program has failed".to_owned()),
                    Happening::Stop => terminal::stop(terminal).map_err(failed)?,
                    Happening::Continue => terminal::set_up(terminal).map_err(failed)?,
                    Happening::Answer(answer) => self.answer(*answer),
                    Happening::Input(Event::Key(key)) if key.kind != KeyEventKind::Release => match self.app.key(key) {
                        Effect::Quit => return Ok(()),
                        Effect::Stop => terminal::ask_to_stop(),
                        effect => self.effect(effect),
                    },
                    // The screen is drawn again, also after it was resized.
                    Happening::Input(_) => {}
                }
            }
        }
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Connected(place) => {
                self.app.place = place;
                self.app.lost = None;
                self.app.waiting = None;
                self.look_again = true;
            }
            Answer::Lost(message) => {
                let since = self.app.lost.as_ref().map_or_else(Instant::now, |(_, since)| *since);
                self.app.lost = Some((message, since));
                self.app.trouble = None;
                self.app.waiting = None;
            }
            Answer::Page(number, page) => {
                // After a look that took long the next one waits as long: the server works at most half of the time for it.
                let took = page.as_ref().as_ref().map_or(Duration::ZERO, |page| page.took);
                self.look_again |= self.app.answer(number, *page);
                self.due = (!self.app.frozen).then(|| Instant::now() + self.app.interval.max(took));
            }
            Answer::Acted { what, result } => {
                self.app.acted(&what, result);
                self.look_again = true;
            }
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Act(action) => {
                self.app.message = Some((format!("{} …", action.what), false));
                let _ = self.asks.send(Ask::Act {
                    what: action.what,
                    sql: action.sql,
                });
            }
            Effect::Look => {
                self.app.outdate();
                self.look_again = true;
            }
            Effect::Nothing | Effect::Redraw | Effect::Stop | Effect::Quit => {}
        }
        if self.app.frozen {
            self.due = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_a_thread_is_told() {
        let (happenings, received) = channel();
        spawn(&happenings, |_| panic!("as a test"));
        assert!(matches!(received.recv(), Ok(Happening::Broken)));
        spawn(&happenings, |_| {});
        drop(happenings);
        assert!(received.recv().is_err());
    }
}
