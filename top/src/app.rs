//! The state of the screen: what is shown, and what is asked.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::actions::Action;
use crate::data::Query;
use crate::link::{Followed, Look, Page};
use crate::views::{TABS, Tab};

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
    /// To the background, as Ctrl-Z does in other programs.
    Stop,
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
    pub selected_key: Option<String>,
    pub follow: Option<Follow>,
    pub followed: Option<Followed>,
    pub rates: [Rates; TABS.len()],
    /// The filter while it is typed.
    pub typing: Option<String>,
    pub question: Option<Action>,
    /// The last answer to an action, and whether it is an error.
    pub message: Option<(String, bool)>,
    /// Why the last look has found nothing.
    pub trouble: Option<String>,
    pub help: bool,
    pub frozen: bool,
    /// Why there is no connection, and since when.
    pub lost: Option<(String, Instant)>,
    /// Since when an answer is awaited.
    pub waiting: Option<Instant>,
    /// Rows that fit on the screen.
    pub height: usize,
    number: u64,
    /// Whether what is shown is the answer to an older question.
    pub outdated: bool,
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
            trouble: None,
            help: false,
            frozen: false,
            lost: None,
            waiting: None,
            height: 10,
            number: 0,
            outdated: false,
        }
    }

    /// The next look, of the rows that fit.
    pub fn look(&mut self) -> Look {
        self.number += 1;
        self.query.limit = Some(self.height);
        Look {
            number: self.number,
            query: self.query.clone(),
            follow: self.follow.as_ref().map(|follow| follow.key.clone()),
        }
    }

    /// Goes to a tab, which has the filter and the order of the last time.
    pub fn open(&mut self, tab: Tab) -> Effect {
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

    /// For rows that are others than those shown.
    pub fn select_first(&mut self) {
        self.selected = 0;
        self.selected_key = None;
    }

    /// Takes the answer to look `number` in. Returns whether another look is due at once.
    pub fn answer(&mut self, number: u64, page: Result<Page, String>) -> bool {
        self.waiting = None;
        self.trouble = None;
        match page {
            // To an older question: the tab, the filter or the rows were others.
            Ok(_) if number != self.number => true,
            Ok(page) => {
                self.outdated = false;
                self.take(page)
            }
            Err(error) => {
                self.trouble = Some(error);
                false
            }
        }
    }

    /// Something else is asked for than what is shown, and than what is under way.
    pub fn outdate(&mut self) {
        self.number += 1;
        self.outdated = true;
    }

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

    /// What an action has done, from the answer of its function.
    pub fn acted(&mut self, what: &str, result: Result<String, String>) {
        self.message = Some(match result {
            Ok(answer) if answer == "f" => (format!("{what}: there was nothing to do"), false),
            Ok(answer) if answer.is_empty() || answer == "t" => (format!("{what}: done"), false),
            Ok(answer) => (format!("{what}: done, {answer}"), false),
            Err(error) => (format!("{what}: {error}"), true),
        });
    }
}

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

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
    fn no_action_on_a_row_of_an_older_question() {
        let mut app = app();
        app.look();
        app.answer(1, Ok(page(Tab::Jobs, &["a"], 1)));
        app.outdate();
        assert!(app.answer(1, Ok(page(Tab::Jobs, &["a"], 1))));
        press(&mut app, KeyCode::Char('c'));
        assert!(app.question.is_none() && app.message.is_some());
        assert_eq!(press(&mut app, KeyCode::Enter), Effect::Nothing);
        let number = app.look().number;
        app.answer(number, Ok(page(Tab::Jobs, &["2,-7"], 1)));
        assert_eq!(press(&mut app, KeyCode::Enter), Effect::Look);
        assert_eq!(app.follow.as_ref().unwrap().key, "2,-7");
    }

    #[test]
    fn a_job_of_another_role_is_not_followed() {
        let mut app = app();
        app.take(page(Tab::Jobs, &["12"], 1));
        for key in [KeyCode::Enter, KeyCode::Char('c')] {
            assert_eq!(press(&mut app, key), Effect::Redraw);
            assert!(app.follow.is_none() && app.question.is_none());
            assert!(app.message.take().unwrap().0.contains("job of another role"));
        }
        app.query.tab = Tab::Queues;
        app.take(page(Tab::Queues, &["12"], 1));
        assert_eq!(press(&mut app, KeyCode::Enter), Effect::Look);
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
