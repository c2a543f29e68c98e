//! Plots the measurements: one line for each, times on a logarithmic scale.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::report::{Line, Unit};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 300.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 56.0;
const STEP: f64 = 30.0;

const WARM: &str = "#1f77b4";
const FRESH: &str = "#7f7f7f";
const THEIRS: &str = "#ff7f0e";

pub fn write(path: &Path, lines: &[Line]) {
    fs::write(path, draw(lines)).expect("the plot can be written");
}

fn draw(lines: &[Line]) -> String {
    let lines: Vec<_> = lines.iter().filter(|line| line.unit == Unit::Milliseconds).collect();
    let values = lines
        .iter()
        .flat_map(|line| [line.warm, line.fresh, Some(line.theirs)])
        .flatten();
    let (least, most) = values.fold((f64::MAX, f64::MIN), |(least, most), value| {
        (least.min(value), most.max(value))
    });
    let (from, to) = (
        least.log10().floor(),
        most.log10().ceil().max(least.log10().floor() + 1.0),
    );
    let x = |ms: f64| LEFT + (ms.log10() - from) / (to - from) * (WIDTH - LEFT - RIGHT);
    let bottom = TOP + STEP * lines.len() as f64;

    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
"#,
        bottom + 40.0
    );
    let legend = [
        (WARM, "pg_background, warm worker"),
        (FRESH, "pg_background, fresh worker"),
        (THEIRS, "what it is compared with (in brackets)"),
    ];
    for (i, (color, text)) in legend.into_iter().enumerate() {
        let at = LEFT + 210.0 * i as f64;
        dot(&mut svg, at, 18.0, color, text);
        label(&mut svg, at + 10.0, 22.0, "start", text);
    }
    for power in from as i32..=to as i32 {
        let at = x(10f64.powi(power));
        let _ = writeln!(
            svg,
            r##"<line x1="{at:.1}" y1="{}" x2="{at:.1}" y2="{bottom}" stroke="#dddddd"/>"##,
            TOP - 14.0
        );
        let ms = 10f64.powi(power);
        let text = if ms >= 1000.0 {
            format!("{} s", ms / 1000.0)
        } else {
            format!("{ms} ms")
        };
        label(&mut svg, at, bottom + 20.0, "middle", &text);
    }
    for (i, line) in lines.into_iter().enumerate() {
        let y = TOP + STEP * i as f64;
        label(&mut svg, LEFT - 14.0, y - 1.0, "end", &line.what);
        let _ = writeln!(
            svg,
            r##"<text x="{}" y="{}" text-anchor="end" font-size="10" fill="#777777">({})</text>"##,
            LEFT - 14.0,
            y + 11.0,
            escaped(&line.against)
        );
        let _ = writeln!(
            svg,
            r##"<line x1="{LEFT}" y1="{y}" x2="{}" y2="{y}" stroke="#eeeeee"/>"##,
            WIDTH - RIGHT
        );
        for (value, color) in [(line.fresh, FRESH), (Some(line.theirs), THEIRS), (line.warm, WARM)] {
            if let Some(value) = value {
                dot(&mut svg, x(value), y, color, &format!("{value:.3} ms"));
            }
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn dot(svg: &mut String, x: f64, y: f64, color: &str, title: &str) {
    let _ = writeln!(
        svg,
        r#"<circle cx="{x:.1}" cy="{y:.1}" r="5" fill="{color}"><title>{}</title></circle>"#,
        escaped(title)
    );
}

fn label(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(
        svg,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#,
        escaped(text)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
