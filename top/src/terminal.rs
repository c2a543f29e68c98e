//! The terminal: what is asked on it before the screen begins, and its state before and after a stop.

use std::io::{Write, stderr, stdout};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers, read};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::layout::Rect;
use rustix::process::{Signal, kill_current_process_group};
use signal_hook::consts::SIGTSTP;
use signal_hook::low_level::emulate_default_handler;

/// Has all processes of the shell's job stop, as the terminal does after Ctrl-Z when no program reads each key: a script that has started this
/// program stops with it.
pub fn ask_to_stop() {
    // Without the right to signal one of them the program goes on.
    let _ = kill_current_process_group(Signal::TSTP);
}

/// Restores the terminal, stops until SIGCONT, and sets the terminal up again.
pub fn stop(terminal: &mut DefaultTerminal) -> std::io::Result<()> {
    if is_orphaned() {
        return Ok(());
    }
    terminal.show_cursor()?;
    ratatui::try_restore()?;
    emulate_default_handler(SIGTSTP)?;
    set_up(terminal)
}

/// Whether no shell could continue this program: all parents up to the end of the session are in its process group. The kernel ignores SIGTSTP
/// for such a group.
fn is_orphaned() -> bool {
    // The parent, the group and the session.
    let status = |pid: &str| -> Option<[String; 3]> {
        let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        let text = String::from_utf8_lossy(&text);
        // The name of the program, in parentheses, may hold anything.
        let mut words = text.rsplit_once(')')?.1.split_whitespace().skip(1).map(str::to_owned);
        Some([words.next()?, words.next()?, words.next()?])
    };
    let Some([mut parent, group, session]) = status("self") else {
        return false;
    };
    while let Some([next, its_group, its_session]) = status(&parent) {
        if its_session != session {
            return true;
        }
        if its_group != group {
            return false;
        }
        parent = next;
    }
    true
}

/// Sets the terminal up for the screen, whatever others did to it meanwhile, and has all of it drawn.
pub fn set_up(terminal: &mut DefaultTerminal) -> std::io::Result<()> {
    // A mode that is on by what this program knows may be off.
    disable_raw_mode()?;
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen)?;
    // This clears the screen without a question to the terminal for the place of the cursor, whose answer another thread would read.
    let size = terminal.size()?;
    terminal.resize(Rect::new(0, 0, size.width, size.height))
}

/// Asks for a password, which is not shown.
pub fn read_password(prompt: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("could not ask for the password: {error}");
    write!(stderr(), "{prompt}")
        .and_then(|()| stderr().flush())
        .map_err(failed)?;
    enable_raw_mode().map_err(failed)?;
    let password = read_line();
    let restored = disable_raw_mode();
    let _ = writeln!(stderr());
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
