//! Values as text of a given width.

use ratatui::text::Span;

use crate::views::{Column, Kind};

/// The cells that a text takes on a terminal.
pub fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// Text of users without what a terminal would obey or hide: control characters, those that turn the direction of writing, and invisible ones
/// that make two names look alike. Joiners stay, which scripts and emoji need.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            c if c.is_control() => ' ',
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}' => ' ',
            '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}' => ' ',
            '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e007f}' => ' ',
            c => c,
        })
        .collect()
}

/// The same for a text of several lines.
pub fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

/// The text in exactly `cells` cells: cut, with a mark, or filled with blanks.
pub fn fit(text: &str, cells: usize, right: bool) -> String {
    let long = width(text);
    if long <= cells {
        let blanks = " ".repeat(cells - long);
        return if right {
            blanks + text
        } else {
            format!("{text}{blanks}")
        };
    }
    let mut cut = String::new();
    let mut used = 0;
    let mut buffer = [0; 4];
    for c in text.chars() {
        let wide = width(c.encode_utf8(&mut buffer));
        if used + wide + 1 > cells {
            break;
        }
        cut.push(c);
        used += wide;
    }
    // A joiner would join the mark.
    cut.truncate(cut.trim_end_matches(['\u{200c}', '\u{200d}']).len());
    if cells > 0 {
        cut.push('…');
        used += 1;
    }
    cut + &" ".repeat(cells.saturating_sub(used))
}

/// The text in at most `cells` cells: if it is longer, its begin and its end.
pub fn middle(text: &str, cells: usize) -> String {
    if width(text) <= cells {
        return text.to_owned();
    }
    let Some(room) = cells.checked_sub(1) else {
        return String::new();
    };
    let take = |chars: &mut dyn Iterator<Item = char>, room: usize| {
        let (mut used, mut buffer) = (0, [0; 4]);
        chars
            .take_while(|c| {
                used += width(c.encode_utf8(&mut buffer));
                used <= room
            })
            .collect::<Vec<_>>()
    };
    let begin = take(&mut text.chars(), room.div_ceil(2));
    let end = take(&mut text.chars().rev(), room / 2);
    begin.into_iter().chain(['…']).chain(end.into_iter().rev()).collect()
}

/// A JSON document whose numbers are exact in programs that read each number as a double: a cookie is a string, and so is each integer beyond
/// 2^53.
pub fn exact_json(document: &str) -> String {
    let mut exact = String::with_capacity(document.len());
    let mut rest = document;
    let mut last = "";
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => {
                let mut escaped = false;
                let end = rest[1..].find(|c| match c {
                    '"' if !escaped => true,
                    c => {
                        escaped = c == '\\' && !escaped;
                        false
                    }
                });
                end.map_or(rest.len(), |end| end + 2)
            }
            '-' | '0'..='9' => rest
                .find(|c| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'))
                .unwrap_or(rest.len()),
            first => first.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        let is_inexact = matches!(first, '-' | '0'..='9')
            && !token.contains(['.', 'e', 'E'])
            && (last == "\"cookie\""
                || token
                    .parse::<i128>()
                    .map_or(true, |number| number.unsigned_abs() > 1 << 53));
        if is_inexact {
            exact.extend(["\"", token, "\""]);
        } else {
            exact.push_str(token);
        }
        if !matches!(first, ':' | ' ') {
            last = token;
        }
        rest = after;
    }
    exact
}

/// A time in at most seven cells, one to come in eight.
pub fn seconds(seconds: f64) -> String {
    if seconds < 0.0 {
        let whole = (-seconds).min(1e12) as u64;
        return match whole {
            0..60 => format!("in {}", self::seconds(-seconds)),
            60..3600 => format!("in {}m", whole / 60),
            3600..36_000 => format!("in {}h{:02}m", whole / 3600, whole / 60 % 60),
            36_000..86_400 => format!("in {}h", whole / 3600),
            _ => format!("in {}d", whole / 86_400),
        };
    }
    // Numbers that a float has exactly; a time that is longer is cut.
    let whole = seconds.min(1e12) as u64;
    match whole {
        0..10 => format!("{seconds:.1}s"),
        10..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
        86_400..8_640_000 => format!("{}d{:02}h", whole / 86_400, whole / 3600 % 24),
        _ => format!("{}d", whole / 86_400),
    }
}

/// A rate in at most seven cells.
pub fn rate(rate: f64) -> String {
    match rate {
        r if r >= 1e9 => format!("{:.1}G", r / 1e9),
        r if r >= 1e6 => format!("{:.1}M", r / 1e6),
        r if r >= 1e4 => format!("{:.1}k", r / 1e3),
        r if r >= 100.0 => format!("{r:.0}"),
        r => format!("{r:.1}"),
    }
}

/// A value of a column as plain text in one line.
pub fn value(column: &Column, cell: Option<&str>) -> String {
    let Some(text) = cell else { return String::new() };
    let number = || text.parse::<f64>().ok();
    match column.kind {
        Kind::Age | Kind::Time => number().map_or_else(|| clean(text), seconds),
        Kind::Progress => format!("{}%", clean(text)),
        Kind::Text => clean(text).split_whitespace().collect::<Vec<_>>().join(" "),
        Kind::Number | Kind::State => clean(text),
    }
}

/// A bar of `cells` cells that is filled to `percent`, with the number before it.
pub fn bar(percent: f64, cells: usize) -> String {
    let number = format!("{:>3}%", percent.clamp(0.0, 100.0).floor());
    let room = cells.saturating_sub(number.len() + 1);
    let filled = ((percent.clamp(0.0, 100.0) / 100.0) * room as f64).floor() as usize;
    fit(
        format!("{number} {}{}", "█".repeat(filled), "░".repeat(room - filled)).trim_end(),
        cells,
        false,
    )
}

/// Whether values of a kind are written to the right.
pub fn is_right(kind: Kind) -> bool {
    matches!(kind, Kind::Number | Kind::Age | Kind::Time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fit() {
        assert_eq!(fit("abc", 5, false), "abc  ");
        assert_eq!(fit("abc", 5, true), "  abc");
        assert_eq!(fit("abcdef", 4, false), "abc…");
        assert_eq!(fit("日本語", 4, false), "日… ");
        assert_eq!(fit("abc", 0, false), "");
        assert_eq!(fit("a\u{1f468}\u{200d}\u{1f469}bcd", 4, false), "a\u{1f468}…");
        assert_eq!(
            clean("a\u{ad}b\u{61c}c\u{feff}d\u{e0041}e\u{e007f}f\u{200d}g"),
            "a b c d e f\u{200d}g"
        );
        assert_eq!(middle("abcdefgh", 8), "abcdefgh");
        assert_eq!(middle("abcdefgh", 6), "abc…gh");
        assert_eq!(middle("日本語日本語", 6), "日…語");
        assert_eq!([middle("abc", 1), middle("abc", 0)], ["…", ""]);
        assert_eq!(clean("a\x1b[31m\u{9b}b\n\u{202e}c"), "a [31m b  c");
    }

    #[test]
    fn times_and_rates() {
        for (value, text) in [
            (0.25, "0.2s"),
            (59.9, "59s"),
            (61.0, "1m01s"),
            (3661.0, "1h01m"),
            (90_000.0, "1d01h"),
            (1e9, "11574d"),
            (-5.04, "in 5.0s"),
            (-61.0, "in 1m"),
            (-3660.0, "in 1h01m"),
            (-86_399.0, "in 23h"),
            (-86_400.0, "in 1d"),
            (f64::MAX, "11574074d"),
        ] {
            assert_eq!(seconds(value), text);
        }
        assert_eq!(
            [rate(0.0), rate(12.34), rate(12_345.0), rate(2e6)],
            ["0.0", "12.3", "12.3k", "2.0M"]
        );
    }

    #[test]
    fn json_numbers_are_exact() {
        assert_eq!(
            exact_json(
                r#"{"tab" : "jobs", "rows" : [{"pid":7,"cookie":-5,"x":9007199254740993,"y":-9007199254740992,"z":1.5e300,"sql":"\"cookie\":1 \\","cookie":null}]}"#
            ),
            r#"{"tab" : "jobs", "rows" : [{"pid":7,"cookie":"-5","x":"9007199254740993","y":-9007199254740992,"z":1.5e300,"sql":"\"cookie\":1 \\","cookie":null}]}"#
        );
    }

    #[test]
    fn sql_takes_one_line() {
        let column = crate::views::Tab::Jobs
            .view()
            .columns
            .iter()
            .find(|column| column.name == "sql")
            .unwrap();
        assert_eq!(value(column, Some("\n  SELECT 1\n\tFROM x")), "SELECT 1 FROM x");
        assert_eq!(value(column, None), "");
    }

    #[test]
    fn bars() {
        assert_eq!(bar(0.0, 10), "  0% ░░░░░");
        assert_eq!(bar(50.0, 10), " 50% ██░░░");
        assert_eq!(bar(100.0, 10), "100% █████");
        assert_eq!(bar(150.0, 4), "100%");
        assert_eq!(width(&bar(33.0, 12)), 12);
    }
}
