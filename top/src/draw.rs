//! The screen: a line about the server, the tabs, the rates, the rows, and a line of keys.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Sparkline};

use crate::actions;
use crate::app::App;
use crate::follow;
use crate::format::{bar, clean, fit, is_right, middle, rate, value, width};
use crate::link::{Page, Row};
use crate::theme::{BOLD, REVERSED, Theme};
use crate::views::{Column, Kind, TABS};

pub fn screen(app: &mut App, theme: &Theme, frame: &mut Frame) {
    let [head, tabs, rates, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(2),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    // One line is that of the columns' names.
    app.height = usize::from(body.height).saturating_sub(1).max(1);
    draw_head(app, theme, frame, head);
    draw_tabs(app, theme, frame, tabs);
    draw_rates(app, theme, frame, rates);
    match (&app.followed, &app.page) {
        (_, Some(page)) if page.missing.is_some() => {
            let text = page.missing.clone().unwrap_or_default();
            frame.render_widget(
                Paragraph::new(vec![Line::default(), Line::from(clean(&text))]).centered(),
                body,
            );
        }
        (Some(followed), _) => {
            let lines = follow::lines(followed, theme, usize::from(body.width));
            let most = lines.len().saturating_sub(usize::from(body.height));
            if let Some(follow) = &mut app.follow {
                follow.scroll = follow.scroll.min(most);
                let shown: Vec<_> = lines
                    .into_iter()
                    .skip(follow.scroll)
                    .take(usize::from(body.height))
                    .collect();
                frame.render_widget(Paragraph::new(shown), body);
            }
        }
        (None, Some(page)) => draw_rows(app, page, theme, frame, body),
        // Nothing for a moment is calmer than a text that goes at once.
        (None, None) if app.waiting.is_some_and(|since| since.elapsed().as_secs() >= 1) => {
            frame.render_widget(Paragraph::new("\nlooking …").centered(), body);
        }
        (None, None) => {}
    }
    draw_foot(app, theme, frame, foot);
    if app.help {
        draw_help(frame);
    }
}

/// One text to the left, one to the right if there is room.
fn two_sides(left: &str, right: &str, cells: usize) -> String {
    let room = cells.saturating_sub(width(right) + 1);
    if room < 20 {
        return fit(left, cells, false);
    }
    format!("{} {right}", fit(left, room, false))
}

fn draw_head(app: &App, theme: &Theme, frame: &mut Frame, area: Rect) {
    let cells = usize::from(area.width);
    if let Some((message, since)) = &app.lost {
        let text = format!(" no connection for {} s: {}", since.elapsed().as_secs(), clean(message));
        frame.render_widget(
            Span::styled(fit(&text, cells, false), theme.colour(Color::Red).patch(REVERSED)),
            area,
        );
        return;
    }
    let waited = app.waiting.map_or(0, |since| since.elapsed().as_secs());
    let pace = match (app.frozen, waited) {
        (true, _) => "frozen".to_owned(),
        (_, 2..) => format!("no answer for {waited} s"),
        _ => format!("every {} s", app.interval.as_secs_f64()),
    };
    let Some(page) = &app.page else {
        let left = format!(" pg_background_top  {}", clean(&app.place));
        let line = two_sides(&left, &format!("{pace} "), cells);
        frame.render_widget(Span::styled(line, BOLD), area);
        return;
    };
    let standby = if page.standby { " standby" } else { "" };
    let version = page.version.split(' ').next().unwrap_or_default();
    let left = format!(
        " {} as {}  PostgreSQL {version}{standby}  {}",
        clean(&page.database),
        clean(&page.role),
        clean(&app.place)
    );
    frame.render_widget(
        Span::styled(two_sides(&left, &format!("{}  {pace} ", page.clock), cells), BOLD),
        area,
    );
}

fn draw_tabs(app: &App, theme: &Theme, frame: &mut Frame, area: Rect) {
    let mut spans = Vec::new();
    for (n, tab) in TABS.into_iter().enumerate() {
        let style = if tab == app.query.tab {
            REVERSED.patch(BOLD)
        } else {
            Style::new()
        };
        spans.push(Span::styled(format!(" {} {} ", n + 1, tab.view().name), style));
    }
    let used: usize = spans.iter().map(Span::width).sum();
    let mut right = String::new();
    if let (Some(page), None) = (&app.page, &app.follow) {
        if page.missing.is_none() {
            let first = app.query.offset;
            right = match page.rows.len() {
                _ if app.outdated => "… ".to_owned(),
                0 => "no rows ".to_owned(),
                shown => format!("{}-{} of {} ", first + 1, first + shown, page.total),
            };
        }
        if app.query.unfinished {
            right = format!("unfinished  {right}");
        }
        if !app.query.filter.is_empty() {
            right = format!("/{}  {right}", clean(&app.query.filter));
        }
    }
    let room = usize::from(area.width).saturating_sub(used);
    spans.push(Span::styled(fit(&right, room, true), theme.colour(Color::Cyan)));
    frame.render_widget(Line::from(spans), area);
}

fn draw_rates(app: &App, theme: &Theme, frame: &mut Frame, area: Rect) {
    let half = area.width / 2;
    let rates = &app.rates[app.query.tab.index()];
    for (n, name) in app.query.tab.view().rates.into_iter().enumerate() {
        let history = &rates.history[n];
        let place = Rect {
            x: area.x + if n == 0 { 0 } else { half },
            width: half,
            ..area
        };
        let text = match history.back() {
            Some(&last) => format!(" {name} {:>6} ", rate(last)),
            None => format!(" {name}      - "),
        };
        let used = u16::try_from(width(&text)).unwrap_or(half).min(half);
        frame.render_widget(Line::from(text), place);
        let graph = Rect {
            x: place.x + used,
            width: (half - used).saturating_sub(1),
            ..place
        };
        let skipped = history.len().saturating_sub(usize::from(graph.width));
        // In thousandths: a rate of one in ten seconds is seen.
        let samples: Vec<u64> = history
            .iter()
            .skip(skipped)
            .map(|rate| (rate * 1000.0) as u64)
            .collect();
        let colour = if n == 0 { Color::Green } else { Color::Red };
        frame.render_widget(Sparkline::default().data(samples).style(theme.colour(colour)), graph);
    }
}

/// The columns that have room, with their widths: of those that have none, the greatest rank goes first. A bar that no row has is not shown.
fn layout(columns: &'static [Column], bars: bool, cells: usize) -> Vec<(usize, &'static Column, usize)> {
    const LAST: usize = 12;
    let wanted: Vec<_> = columns
        .iter()
        .enumerate()
        .filter(|(_, column)| bars || column.kind != Kind::Progress)
        .collect();
    let mut rank = u8::MAX;
    loop {
        let shown: Vec<_> = wanted
            .iter()
            .filter(|(_, column)| column.rank < rank || column.rank == 0)
            .collect();
        let fixed: usize = shown
            .iter()
            .map(|(_, column)| usize::from(column.width) + usize::from(column.width > 0))
            .sum();
        if fixed + LAST <= cells || rank <= 1 {
            let rest = cells.saturating_sub(fixed);
            return shown
                .into_iter()
                .map(|(n, column)| {
                    (
                        *n,
                        *column,
                        if column.width > 0 {
                            usize::from(column.width)
                        } else {
                            rest
                        },
                    )
                })
                .collect();
        }
        rank = wanted
            .iter()
            .map(|(_, column)| column.rank)
            .filter(|other| *other < rank)
            .max()
            .unwrap_or(0);
    }
}

fn draw_rows(app: &App, page: &Page, theme: &Theme, frame: &mut Frame, area: Rect) {
    let all = page.tab.view().columns;
    let bar = all.iter().position(|column| column.kind == Kind::Progress);
    let bars = bar.is_some_and(|bar| {
        page.rows
            .iter()
            .any(|row| row.cells.get(bar).is_some_and(Option::is_some))
    });
    let columns = layout(all, bars, usize::from(area.width));
    let mut names = Vec::new();
    for (n, column, cells) in &columns {
        let sorted = app.query.sort.filter(|(sorted, _)| sorted == n);
        let mark = sorted.map_or("", |(_, descending)| if descending { "▼" } else { "▲" });
        names.push(Span::raw(
            fit(&format!("{}{mark}", column.name), *cells, is_right(column.kind)) + " ",
        ));
    }
    let mut lines =
        vec![Line::from(names).style(theme.colour(Color::Blue).patch(BOLD).add_modifier(Modifier::UNDERLINED))];
    for (n, row) in page.rows.iter().take(app.height).enumerate() {
        // The selected row has one colour: on a reversed ground the others would be blots.
        let line = if n == app.selected {
            row_line(row, &columns, &Theme::plain()).style(REVERSED)
        } else if app.lost.is_some() {
            row_line(row, &columns, theme).style(theme.dim())
        } else {
            row_line(row, &columns, theme)
        };
        lines.push(line);
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn row_line(row: &Row, columns: &[(usize, &'static Column, usize)], theme: &Theme) -> Line<'static> {
    let cell = |n: usize| row.cells.get(n).and_then(|cell| cell.as_deref());
    let state = columns
        .iter()
        .find(|(_, column, _)| column.kind == Kind::State)
        .and_then(|(n, ..)| cell(*n))
        .unwrap_or_default();
    let ended = matches!(state, "stopped" | "done" | "failed" | "error" | "canceled" | "expired");
    let mut spans = Vec::new();
    for (n, column, cells) in columns {
        let text = cell(*n);
        let number = text.and_then(|text| text.parse::<f64>().ok());
        let shown = match (column.kind, number) {
            (Kind::Progress, Some(percent)) => bar(percent, *cells),
            _ => fit(&value(column, text), *cells, is_right(column.kind)),
        };
        let style = match (column.kind, number) {
            (Kind::State, _) => theme.state(state),
            (Kind::Age, Some(seconds)) if !ended => theme.age(seconds),
            (Kind::Progress, _) => theme.colour(Color::Green),
            _ if column.name == "error" || (column.name.contains("failed") && number.is_some_and(|n| n > 0.0)) => {
                theme.colour(Color::Red)
            }
            _ => Style::new(),
        };
        spans.push(Span::styled(shown, style));
        spans.push(Span::raw(" "));
    }
    Line::from(spans)
}

fn draw_foot(app: &App, theme: &Theme, frame: &mut Frame, area: Rect) {
    let cells = usize::from(area.width);
    let trouble = app.trouble.clone().map(|trouble| (trouble, true));
    let (text, style) = match (&app.question, &app.typing, app.message.as_ref().or(trouble.as_ref())) {
        (Some(action), ..) => (
            format!(
                " {}? (y/n)",
                middle(&clean(&action.what), cells.saturating_sub(" ? (y/n)".len()))
            ),
            theme.colour(Color::Yellow).patch(REVERSED),
        ),
        (_, Some(typed), _) => (format!(" filter: {}_", clean(typed)), REVERSED),
        (.., Some((message, true))) => (format!(" {}", clean(message)), theme.colour(Color::Red).patch(BOLD)),
        (.., Some((message, false))) => (format!(" {}", clean(message)), BOLD),
        _ if app.follow.is_some() => (
            format!(" {}  Esc back  ? help", actions::hints(app.query.tab)),
            theme.dim(),
        ),
        _ => (
            format!(
                " {}  Enter follow  / filter  < > sort  ? help  q quit",
                actions::hints(app.query.tab)
            ),
            theme.dim(),
        ),
    };
    frame.render_widget(Span::styled(fit(&text, cells, false), style), area);
}

const HELP: [&str; 16] = [
    "1-5 Tab arrows  tabs",
    "Up Down PgUp PgDn Home End  rows",
    "Enter           follow a row; Esc: back",
    "/               filter; Esc: all rows",
    "u               only what has not ended",
    "< >             the column to sort by",
    "i               the other direction",
    "c               cancel a job, task, operation",
    "r               retry a task, an operation",
    "p               pause or resume a queue, a",
    "                schedule, an operation",
    "x               run a schedule now",
    "+ -             interval twice, half as long",
    "Space           freeze, go on",
    "Ctrl-Z          stop, until the shell's fg",
    "q               quit",
];

fn draw_help(frame: &mut Frame) {
    let area = frame.area();
    let (wide, high) = (50.min(area.width), (HELP.len() as u16 + 2).min(area.height));
    let place = Rect {
        x: (area.width - wide) / 2,
        y: (area.height - high) / 2,
        width: wide,
        height: high,
    };
    let lines: Vec<_> = HELP.iter().map(|line| Line::from(format!(" {line}"))).collect();
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" keys ")), place);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tab_fits_into_80_columns() {
        for tab in TABS {
            for cells in [80, 100, 200] {
                let columns = layout(tab.view().columns, true, cells);
                let used: usize = columns
                    .iter()
                    .map(|(_, column, cells)| cells + usize::from(column.width > 0))
                    .sum();
                assert_eq!(used, cells, "{}", tab.view().name);
            }
            assert_eq!(layout(tab.view().columns, true, 250).len(), tab.view().columns.len());
        }
    }
}
