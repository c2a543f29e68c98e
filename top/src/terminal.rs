//! What is asked on the terminal before the screen begins.

use std::io::{Write, stderr};

use ratatui::crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers, read};
use ratatui::crossterm::terminal::{disable_raw_mode, enable_raw_mode};

/// Asks for a password, which is not shown.
pub fn read_password(prompt: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("could not ask for the password: {error}");
    eprint!("{prompt}");
    stderr().flush().map_err(failed)?;
    enable_raw_mode().map_err(failed)?;
    let password = read_line();
    let restored = disable_raw_mode();
    eprintln!();
    restored.map_err(failed)?;
    password
        .map_err(failed)?
        .ok_or_else(|| "no password was given".to_owned())
}

fn read_line() -> std::io::Result<Option<String>> {
    let mut text = String::new();
    loop {
        let Event::Key(key) = read()? else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Enter => return Ok(Some(text)),
            KeyCode::Char('c' | 'd') if control => return Ok(None),
            KeyCode::Char('u') if control => text.clear(),
            KeyCode::Backspace => {
                text.pop();
            }
            KeyCode::Char(c) if !control => text.push(c),
            _ => {}
        }
    }
}
