//! The state of the screen: what is shown, what is asked, and what each key does.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use postgres::Client;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::actions::{self, Action};
use crate::connect::Connector;
use crate::data::{Query, TABS, Tab};
use crate::draw;
use crate::link::{self, Answer, Ask, Followed, Look, Page};

/// Samples of a rate that are kept: as many as a wide screen shows.
const SAMPLES: usize = 200;

/// The rates of a tab's two counters.
#[derive(Default)]
pub struct Rates {
    last: Option<(Instant, [f64; 2])>,
    /// Per second, the newest last.
    pub history: [VecDeque<f64>; 2],
}

impl Rates {
    fn add(&mut self, at: Instant, counters: [f64; 2]) {
        if let Some((before, old)) = self.last {
            let seconds = at.duration_since(before).as_secs_f64();
            // Two looks right after another tell nothing about a rate.
            if seconds < 0.05 {
                return;
            }
            for (n, history) in self.history.iter_mut().enumerate() {
                // A counter that became less was reset.
                history.push_back(((counters[n] - old[n]) / seconds).max(0.0));
                if history.len() > SAMPLES {
                    history.pop_front();
                }
            }
        }
        self.last = Some((at, counters));
    }
}

/// One row that is followed: its key, and the first line shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follow {
    pub key: String,
    pub scroll: usize,
}

/// What a key has the loop do.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    Nothing,
    Look,
    Act(Action),
    Redraw,
    Quit,
}

pub struct App {
    pub query: Query,
    /// The queries of the other tabs, to come back to.
    queries: [Option<Query>; TABS.len()],
    pub place: String,
    pub interval: Duration,
    pub page: Option<Page>,
    pub selected: usize,
    selected_key: Option<String>,
    pub follow: Option<Follow>,
    pub followed: Option<Followed>,
    pub rates: [Rates; TABS.len()],
    /// The filter while it is typed.
    pub typing: Option<String>,
    pub question: Option<Action>,
    /// The last answer to an action, or an error.
    pub message: Option<(String, bool)>,
    pub help: bool,
    pub frozen: bool,
    /// Why there is no connection, and since when.
    pub lost: Option<(String, Instant)>,
    /// Since when an answer is awaited.
    pub waiting: Option<Instant>,
    /// Rows that fit on the screen.
    pub height: usize,
    number: u64,
}

impl App {
    pub fn new(query: Query, interval: Duration, place: String) -> Self {
        Self {
            query,
            queries: Default::default(),
            place,
            interval,
            page: None,
            selected: 0,
            selected_key: None,
            follow: None,
            followed: None,
            rates: Default::default(),
            typing: None,
            question: None,
            message: None,
            help: false,
            frozen: false,
            lost: None,
            waiting: None,
            height: 10,
            number: 0,
        }
    }

    /// The next look, of the rows that fit.
    fn look(&mut self) -> Look {
        self.number += 1;
        self.query.limit = Some(self.height);
        Look {
            number: self.number,
            query: self.query.clone(),
            follow: self.follow.as_ref().map(|follow| follow.key.clone()),
        }
    }

    fn open(&mut self, tab: Tab) -> Effect {
        if tab != self.query.tab {
            let fresh = Query {
                tab,
                filter: String::new(),
                unfinished: false,
                sort: None,
                offset: 0,
                limit: None,
            };
            let query = self.queries[tab.index()].take().unwrap_or(fresh);
            let old = std::mem::replace(&mut self.query, query);
            let place = old.tab.index();
            self.queries[place] = Some(old);
            self.page = None;
            self.select_first();
        }
        self.follow = None;
        self.followed = None;
        Effect::Look
    }

    fn select_first(&mut self) {
        self.selected = 0;
        self.selected_key = None;
    }

    /// Takes an answer in. Returns whether another look is due at once.
    fn take(&mut self, page: Page) -> bool {
        if let Some(counters) = page.counters {
            self.rates[page.tab.index()].add(page.at, counters);
        }
        if self.follow.is_some() {
            self.followed = page.followed.clone();
            if let (Some(old), true) = (&mut self.page, page.missing.is_none()) {
                // The list stays as it was, to come back to.
                let (rows, total) = (std::mem::take(&mut old.rows), old.total);
                *old = Page { rows, total, ..page };
                return false;
            }
        }
        let beyond = page.rows.is_empty() && self.query.offset > 0;
        let kept = self
            .selected_key
            .as_ref()
            .and_then(|key| page.rows.iter().position(|row| row.key == *key));
        self.selected = kept.unwrap_or(self.selected).min(page.rows.len().saturating_sub(1));
        self.selected_key = page.rows.get(self.selected).map(|row| row.key.clone());
        self.page = Some(page);
        if beyond {
            self.query.offset = 0;
        }
        beyond
    }

    fn select(&mut self, selected: usize) -> Effect {
        self.selected = selected;
        self.selected_key = self
            .page
            .as_ref()
            .and_then(|page| page.rows.get(selected))
            .map(|row| row.key.clone());
        Effect::Redraw
    }

    /// Moves the selection by some rows, and the rows below it where it leaves the screen.
    fn step(&mut self, by: isize) -> Effect {
        if let Some(follow) = &mut self.follow {
            follow.scroll = follow.scroll.saturating_add_signed(by);
            return Effect::Redraw;
        }
        let Some(page) = &self.page else { return Effect::Nothing };
        let (shown, total) = (page.rows.len(), page.total);
        let wanted = (self.query.offset + self.selected)
            .saturating_add_signed(by)
            .min(total.saturating_sub(1));
        if (self.query.offset..self.query.offset + shown).contains(&wanted) {
            return self.select(wanted - self.query.offset);
        }
        self.query.offset = if wanted < self.query.offset {
            wanted
        } else {
            (wanted + 1).saturating_sub(self.height)
        };
        self.selected = wanted - self.query.offset;
        self.selected_key = None;
        Effect::Look
    }

    fn sort(&mut self, step: isize) -> Effect {
        let columns = self.query.tab.view().columns.len();
        // None is one more place in the circle: the tab's own order.
        let now = self.query.sort.map_or(0, |(column, _)| column + 1);
        let next = (now + columns + 1).saturating_add_signed(step) % (columns + 1);
        let descending = self.query.sort.is_some_and(|(_, descending)| descending);
        self.query.sort = next.checked_sub(1).map(|column| (column, descending));
        self.from_the_top()
    }

    fn from_the_top(&mut self) -> Effect {
        self.query.offset = 0;
        self.select_first();
        Effect::Look
    }

    fn ask(&mut self, key: char) -> Effect {
        let Some(page) = &self.page else { return Effect::Nothing };
        let row = match &self.follow {
            Some(follow) => page.rows.iter().find(|row| row.key == follow.key),
            None => page.rows.get(self.selected),
        };
        let action = row.and_then(|row| actions::of(key, page.tab, row, &page.catalog));
        self.question = action;
        Effect::Redraw
    }

    pub fn key(&mut self, key: KeyEvent) -> Effect {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return Effect::Quit;
        }
        self.message = None;
        if let Some(action) = self.question.take() {
            return match key.code {
                KeyCode::Char('y' | 'Y') => Effect::Act(action),
                _ => {
                    self.message = Some(("nothing was done".to_owned(), false));
                    Effect::Redraw
                }
            };
        }
        if let Some(text) = &mut self.typing {
            match key.code {
                KeyCode::Char('u') if control => text.clear(),
                KeyCode::Char(c) if !control => text.push(c),
                KeyCode::Backspace => {
                    text.pop();
                }
                KeyCode::Enter => {
                    self.query.filter = self.typing.take().unwrap_or_default();
                    return self.from_the_top();
                }
                KeyCode::Esc => self.typing = None,
                _ => {}
            }
            return Effect::Redraw;
        }
        if std::mem::take(&mut self.help) {
            return Effect::Redraw;
        }
        let rows = isize::try_from(self.height).unwrap_or(1);
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc if self.follow.is_some() => {
                self.follow = None;
                self.followed = None;
                Effect::Look
            }
            KeyCode::Char('q') => Effect::Quit,
            KeyCode::Esc => {
                self.query.filter.clear();
                self.query.unfinished = false;
                self.from_the_top()
            }
            KeyCode::Char(digit @ '1'..='5') => self.open(TABS[digit as usize - '1' as usize]),
            KeyCode::Tab | KeyCode::Right => self.open(TABS[(self.query.tab.index() + 1) % TABS.len()]),
            KeyCode::BackTab | KeyCode::Left => self.open(TABS[(self.query.tab.index() + TABS.len() - 1) % TABS.len()]),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::PageDown => self.step(rows),
            KeyCode::PageUp => self.step(-rows),
            KeyCode::Home | KeyCode::Char('g') => self.step(isize::MIN / 2),
            KeyCode::End | KeyCode::Char('G') if self.follow.is_none() => self.step(isize::MAX / 2),
            KeyCode::Enter => {
                let row = self.page.as_ref().and_then(|page| page.rows.get(self.selected));
                match row {
                    Some(row) if self.follow.is_none() => {
                        self.follow = Some(Follow {
                            key: row.key.clone(),
                            scroll: 0,
                        });
                        Effect::Look
                    }
                    _ => Effect::Nothing,
                }
            }
            KeyCode::Char('/') if self.follow.is_none() => {
                self.typing = Some(self.query.filter.clone());
                Effect::Redraw
            }
            KeyCode::Char('u') if self.follow.is_none() => {
                self.query.unfinished = !self.query.unfinished;
                self.from_the_top()
            }
            KeyCode::Char('<') if self.follow.is_none() => self.sort(-1),
            KeyCode::Char('>') if self.follow.is_none() => self.sort(1),
            KeyCode::Char('i') if self.follow.is_none() => {
                if let Some((_, descending)) = &mut self.query.sort {
                    *descending = !*descending;
                }
                self.from_the_top()
            }
            KeyCode::Char('+') => self.pace(2.0),
            KeyCode::Char('-') => self.pace(0.5),
            KeyCode::Char(' ') => {
                self.frozen = !self.frozen;
                if self.frozen { Effect::Redraw } else { Effect::Look }
            }
            KeyCode::Char('?' | 'h') => {
                self.help = true;
                Effect::Redraw
            }
            KeyCode::Char(key @ ('c' | 'r' | 'p' | 'x')) => self.ask(key),
            _ => Effect::Nothing,
        }
    }

    fn pace(&mut self, factor: f64) -> Effect {
        self.interval = self
            .interval
            .mul_f64(factor)
            .clamp(Duration::from_millis(125), Duration::from_secs(512));
        Effect::Look
    }

    /// What an action has done, from the answer of its function.
    fn acted(&mut self, what: &str, result: Result<String, String>) {
        self.message = Some(match result {
            Ok(answer) if answer == "f" => (format!("{what}: there was nothing to do"), false),
            Ok(answer) if answer.is_empty() || answer == "t" => (format!("{what}: done"), false),
            Ok(answer) => (format!("{what}: done, {answer}"), false),
            Err(error) => (format!("{what}: {error}"), true),
        });
    }
}

enum Happening {
    Input(Event),
    Answer(Answer),
}

/// Shows the screen until the user ends it.
pub fn run(query: Query, interval: Duration, connector: Connector, client: Client) -> Result<(), String> {
    let mut app = App::new(query, interval, connector.place());
    let (happenings, received) = channel();
    let (asks, asked) = channel();
    let sender: Sender<Happening> = happenings.clone();
    std::thread::spawn(move || {
        link::serve(&connector, client, &asked, &|answer| {
            sender.send(Happening::Answer(answer)).is_ok()
        })
    });
    let mut terminal = ratatui::try_init().map_err(|error| format!("could not use the terminal: {error}"))?;
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if happenings.send(Happening::Input(event)).is_err() {
                return;
            }
        }
    });
    let ended = turn(&mut app, &mut terminal, &received, &asks);
    ratatui::restore();
    ended.map_err(|error| format!("could not write to the terminal: {error}"))
}

fn turn(
    app: &mut App,
    terminal: &mut ratatui::DefaultTerminal,
    received: &Receiver<Happening>,
    asks: &Sender<Ask>,
) -> std::io::Result<()> {
    let style = draw::Theme::from_environment();
    // When the next look is due; None while one is under way, or there is no connection.
    let mut due = None;
    let mut look_again = false;
    loop {
        let height = app.height;
        terminal.draw(|frame| draw::screen(app, &style, frame))?;
        if app.height != height && app.page.is_some() {
            look_again = true;
        }
        if look_again && app.waiting.is_none() && app.lost.is_none() {
            look_again = false;
            due = Some(Instant::now());
        }
        let now = Instant::now();
        if due.is_some_and(|due| due <= now) {
            due = None;
            app.waiting = Some(now);
            let _ = asks.send(Ask::Look(app.look()));
        }
        // What waits is shown with the seconds that it has waited.
        let next = if app.waiting.is_some() || app.lost.is_some() {
            Some(now + Duration::from_secs(1))
        } else {
            due
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
                Happening::Answer(Answer::Connected) => {
                    app.lost = None;
                    app.waiting = None;
                    look_again = true;
                }
                Happening::Answer(Answer::Lost(message)) => {
                    let since = app.lost.as_ref().map_or_else(Instant::now, |(_, since)| *since);
                    app.lost = Some((message, since));
                    app.waiting = None;
                    due = None;
                }
                Happening::Answer(Answer::Page(number, page)) => {
                    app.waiting = None;
                    // After a look that took long the next one waits as long: the server works at most half of the time for it.
                    let mut pause = app.interval;
                    match page {
                        Ok(page) => {
                            pause = pause.max(page.took);
                            if number == app.number {
                                look_again |= app.take(page);
                            } else {
                                look_again = true;
                            }
                        }
                        Err(error) => app.message = Some((error, true)),
                    }
                    due = (!app.frozen).then(|| Instant::now() + pause);
                }
                Happening::Answer(Answer::Acted { what, result }) => {
                    app.acted(&what, result);
                    look_again = true;
                }
                Happening::Input(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    match app.key(key) {
                        Effect::Quit => return Ok(()),
                        Effect::Act(action) => {
                            app.message = Some((format!("{} …", action.what), false));
                            let _ = asks.send(Ask::Act {
                                what: action.what,
                                sql: action.sql,
                            });
                        }
                        // An answer that is on its way is of the old question.
                        Effect::Look => {
                            app.number += 1;
                            look_again = true;
                        }
                        Effect::Nothing | Effect::Redraw => {}
                    }
                    if app.frozen {
                        due = None;
                    }
                }
                Happening::Input(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Catalog;
    use crate::link::Row;

    fn app() -> App {
        let query = Query {
            tab: Tab::Jobs,
            filter: String::new(),
            unfinished: false,
            sort: None,
            offset: 0,
            limit: None,
        };
        App::new(query, Duration::from_secs(2), "here".to_owned())
    }

    fn page(tab: Tab, keys: &[&str], total: usize) -> Page {
        Page {
            tab,
            database: String::new(),
            role: String::new(),
            version: String::new(),
            standby: false,
            clock: String::new(),
            catalog: Catalog::default(),
            missing: None,
            total,
            rows: keys
                .iter()
                .map(|key| Row {
                    key: (*key).to_owned(),
                    cells: Vec::new(),
                })
                .collect(),
            counters: None,
            followed: None,
            at: Instant::now(),
            took: Duration::ZERO,
        }
    }

    fn press(app: &mut App, code: KeyCode) -> Effect {
        app.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn the_selection_stays_on_its_row() {
        let mut app = app();
        app.take(page(Tab::Jobs, &["a", "b", "c"], 3));
        assert_eq!(press(&mut app, KeyCode::Down), Effect::Redraw);
        app.take(page(Tab::Jobs, &["x", "a", "b"], 3));
        assert_eq!(app.selected, 2);
        app.take(page(Tab::Jobs, &["x"], 1));
        assert_eq!(app.selected, 0);
    }

    #[test]
    fn rows_beyond_the_screen_are_asked_for() {
        let mut app = app();
        app.height = 2;
        app.take(page(Tab::Jobs, &["a", "b"], 5));
        press(&mut app, KeyCode::Down);
        assert_eq!(press(&mut app, KeyCode::Down), Effect::Look);
        assert_eq!((app.query.offset, app.selected), (1, 1));
        app.take(page(Tab::Jobs, &["b", "c"], 5));
        assert_eq!(press(&mut app, KeyCode::End), Effect::Look);
        assert_eq!((app.query.offset, app.selected), (3, 1));
        assert_eq!(app.look().query.limit, Some(2));
        app.take(page(Tab::Jobs, &["d", "e"], 5));
        assert_eq!(press(&mut app, KeyCode::Home), Effect::Look);
        assert_eq!((app.query.offset, app.selected), (0, 0));
        // The rows became fewer.
        app.query.offset = 3;
        assert!(app.take(page(Tab::Jobs, &[], 0)));
        assert_eq!(app.query.offset, 0);
    }

    #[test]
    fn each_tab_keeps_its_filter() {
        let mut app = app();
        for key in [KeyCode::Char('/'), KeyCode::Char('q'), KeyCode::Char('1')] {
            press(&mut app, key);
        }
        assert_eq!(press(&mut app, KeyCode::Enter), Effect::Look);
        assert_eq!(app.query.filter, "q1");
        press(&mut app, KeyCode::Char('3'));
        assert_eq!((app.query.tab, app.query.filter.as_str()), (Tab::Queues, ""));
        press(&mut app, KeyCode::Char('1'));
        assert_eq!((app.query.tab, app.query.filter.as_str()), (Tab::Jobs, "q1"));
        press(&mut app, KeyCode::Esc);
        assert_eq!(app.query.filter, "");
    }

    #[test]
    fn nothing_is_done_without_a_yes() {
        let mut app = app();
        let action = Action {
            what: "cancel".to_owned(),
            sql: "SELECT 1".to_owned(),
        };
        app.question = Some(action.clone());
        assert_eq!(press(&mut app, KeyCode::Enter), Effect::Redraw);
        assert_eq!(app.question, None);
        app.question = Some(action.clone());
        assert_eq!(press(&mut app, KeyCode::Char('y')), Effect::Act(action));
    }

    #[test]
    fn sorting_goes_round() {
        let mut app = app();
        press(&mut app, KeyCode::Char('<'));
        assert_eq!(app.query.sort, Some((app.query.tab.view().columns.len() - 1, false)));
        press(&mut app, KeyCode::Char('i'));
        press(&mut app, KeyCode::Char('>'));
        assert_eq!(app.query.sort, None);
        press(&mut app, KeyCode::Char('>'));
        assert_eq!(app.query.sort, Some((0, false)));
    }

    #[test]
    fn rates_are_of_the_time_between() {
        let mut rates = Rates::default();
        let start = Instant::now();
        rates.add(start, [10.0, 5.0]);
        rates.add(start + Duration::from_secs(2), [30.0, 5.0]);
        rates.add(start + Duration::from_secs(4), [0.0, 6.0]);
        assert_eq!(rates.history[0], [10.0, 0.0]);
        assert_eq!(rates.history[1], [0.0, 0.5]);
    }
}
