//! What each key does to the state of the screen.

use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::actions;
use crate::app::{App, Effect, Follow};
use crate::views::TABS;

impl App {
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
        self.restart_at_top()
    }

    fn restart_at_top(&mut self) -> Effect {
        self.query.offset = 0;
        self.select_first();
        Effect::Look
    }

    fn ask(&mut self, key: char) -> Effect {
        // The key may be meant for a row that is still to come.
        if self.outdated {
            self.message = Some(("not yet: the rows are on their way".to_owned(), false));
            return Effect::Redraw;
        }
        let Some(page) = &self.page else { return Effect::Nothing };
        let row = match &self.follow {
            Some(follow) => page.rows.iter().find(|row| row.key == follow.key),
            None => page.rows.get(self.selected),
        };
        let mut row = row.cloned();
        let state = page.tab.view().columns.iter().position(|column| column.name == "state");
        // The list is older than what is followed.
        if let (Some(row), Some(followed), Some(state)) = (&mut row, &self.followed, state) {
            row.cells[state] = followed.state();
        }
        let refusal = row.as_ref().and_then(|row| actions::refusal(page.tab, row));
        if let (Some(refusal), 'c') = (refusal, key) {
            self.message = Some((refusal, false));
            return Effect::Redraw;
        }
        self.question = row.and_then(|row| actions::of(key, page.tab, &row, &page.catalog));
        Effect::Redraw
    }

    pub fn key(&mut self, key: KeyEvent) -> Effect {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return Effect::Quit;
        }
        if control && key.code == KeyCode::Char('z') {
            return Effect::Stop;
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
                    return self.restart_at_top();
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
                self.restart_at_top()
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
                let page = self.page.as_ref();
                let row = page.and_then(|page| Some((page.tab, page.rows.get(self.selected)?)));
                let refusal = row.and_then(|(tab, row)| actions::refusal(tab, row));
                if let (Some(refusal), None, false) = (refusal, &self.follow, self.outdated) {
                    self.message = Some((refusal, false));
                    return Effect::Redraw;
                }
                match row.map(|(_, row)| row) {
                    Some(row) if self.follow.is_none() && !self.outdated => {
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
                self.restart_at_top()
            }
            KeyCode::Char('<') if self.follow.is_none() => self.sort(-1),
            KeyCode::Char('>') if self.follow.is_none() => self.sort(1),
            KeyCode::Char('i') if self.follow.is_none() => {
                if let Some((_, descending)) = &mut self.query.sort {
                    *descending = !*descending;
                }
                self.restart_at_top()
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
}
