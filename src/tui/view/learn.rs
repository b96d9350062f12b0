//! Learn: the method in chapters and steps over the present model and picture; each step draws one of the other views and says what to see.

use crossterm::event::KeyCode;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::Widget;
use tui_big_text::{BigText, PixelSize};

use super::spec::{ViewSpec, no_csv};
use crate::engine::Study;
use crate::model::Site;
use crate::tui::app::App;
use crate::tui::choice::View;
use crate::tui::facts;
use crate::tui::facts::{filled, shown};
use crate::tui::hit::{Hits, Walk};
use crate::tui::keys::Key::{Char, Code};
use crate::tui::keys::{Action, bind};
use crate::tui::lessons::{Guess, Shown};
use crate::tui::widget::text::wrap;
use crate::tui::widget::{panel, put};

pub const SPEC: ViewSpec = ViewSpec {
    name: "learn",
    title: "Learn",
    key: '7',
    help: &[
        "The method in eight chapters, over the present model and image: every number",
        "is that of the run beneath. Space goes on, Backspace back, < and > a chapter.",
        "At a question choose with the arrow keys and let Space compute the answer.",
        "All other keys work as ever: try what a bit more or less does.",
    ],
    keys: &[
        bind(&[Char(' ')], Action::Lesson(true), "Space", "the next step", "Space next"),
        bind(&[Code(KeyCode::Backspace)], Action::Lesson(false), "Backspace", "the step before", "Backspace back"),
        bind(&[Char('>')], Action::Chapter(true), ">", "the next chapter", "</> chapter"),
        bind(&[Char('<')], Action::Chapter(false), "<", "the chapter before", ""),
        bind(&[Char('l'), Code(KeyCode::Right)], Action::Cursor(true), "l →", "next channel, or the next guess at a question", ""),
        bind(&[Char('h'), Code(KeyCode::Left)], Action::Cursor(false), "h ←", "previous channel, or the guess before", ""),
    ],
    draw,
    rows: |app| (beneath(app).spec().rows)(app),
    cursor: Some(cursor),
    study,
    detail,
    csv: no_csv,
};

/// The view of the present step.
fn beneath(app: &App) -> View {
    // A lesson in a lesson would draw itself.
    shown(app).map(|shown| shown.panel()).filter(|view| view.name() != SPEC.name).unwrap_or_default()
}

fn cursor(app: &App) -> Walk {
    let spec = beneath(app).spec();
    spec.cursor.unwrap_or(spec.rows)(app)
}

fn study(app: &App) -> Option<Study> {
    (beneath(app).spec().study)(app)
}

fn detail(app: &App) -> Option<Site> {
    (beneath(app).spec().detail)(app)
}

/// Lines of what is said, with their styles.
fn lines(app: &App, room: usize) -> Vec<(String, Style)> {
    let (plain, bold) = (Style::new(), Style::new().add_modifier(Modifier::BOLD));
    let wrapped = |text: &str, style: Style| wrap(&filled(app, text), room).into_iter().map(move |line| (line, style)).collect::<Vec<_>>();
    let Some(place) = &app.lesson else { return Vec::new() };
    match shown(app) {
        Some(Shown::Step(step)) => [wrapped(&step.caption, plain), wrapped(&step.formula, bold)].concat(),
        Some(Shown::Question(question)) => {
            let choices: Vec<String> =
                Guess::ALL.iter().map(|g| if *g == place.guess { format!("[{}]", g.name()) } else { format!(" {} ", g.name()) }).collect();
            let choices = format!("your guess: {}   (arrow keys choose, Space computes the answer)", choices.join("  "));
            [wrapped(&question.ask, plain), vec![(choices, bold)]].concat()
        }
        Some(Shown::Answer(question)) => {
            let after = facts::watched(app, &question.watch);
            let answer = match (place.before, after) {
                (Some(before), Some(after)) => {
                    let became = Guess::of(before, after);
                    let verdict = if became == place.guess { "as you guessed" } else { "not as you guessed" };
                    let did = match became {
                        Guess::Rise => "it rose",
                        Guess::Fall => "it fell",
                        Guess::Stay => "it stayed",
                    };
                    format!("{} to {}: {did}, {verdict}.", facts::told(&question.watch, before), facts::told(&question.watch, after))
                }
                (None, Some(after)) => format!("now {}.", facts::told(&question.watch, after)),
                _ => "computing".to_string(),
            };
            [vec![(answer, app.look.good())], wrapped(&question.reveal, plain)].concat()
        }
        None => Vec::new(),
    }
}

/// Columns and rows of a letter of large type.
const LETTER: (u16, u16) = (4, 4);

/// For a projector: the title in large type, and what is said as well where that leaves half of the screen to the panel. The rows taken and
/// the rest; none where there is no room for large type.
fn large(app: &App, area: Rect, buf: &mut Buffer) -> Option<(u16, Rect)> {
    let title = app.lesson.as_ref().and_then(|place| app.lessons.get(place.chapter)).map(|chapter| chapter.title.clone())?;
    let room = usize::from(area.width / LETTER.0);
    let title = wrap(&title, room);
    if app.look.ascii || room < 12 || title.len() as u16 * LETTER.1 > area.height / 3 {
        return None;
    }
    let mut top = write_large(&title, app.look.accent(), area, buf);
    let said = lines(app, room);
    let plain = lines(app, usize::from(area.width.saturating_sub(4)));
    if said.len() as u16 * LETTER.1 + top <= area.height / 2 {
        for (line, style) in said {
            let below = Rect { y: area.y + top, height: area.height - top, ..area };
            top += write_large(&[line], style, below, buf);
        }
    } else {
        for (line, style) in plain {
            put(buf, area, 2, top, &line, style);
            top += 1;
        }
    }
    let taken = (top + 1).min(area.height);
    Some((taken, Rect { y: area.y + taken, height: area.height - taken, ..area }))
}

/// Writes lines in large type; the rows that they take.
fn write_large(lines: &[String], style: Style, area: Rect, buf: &mut Buffer) -> u16 {
    let height = (lines.len() as u16 * LETTER.1).min(area.height);
    let text: Vec<Line<'_>> = lines.iter().map(|line| Line::from(line.as_str())).collect();
    BigText::builder().pixel_size(PixelSize::Quadrant).style(style).lines(text).build().render(Rect { height, ..area }, buf);
    height
}

fn draw(app: &App, area: Rect, buf: &mut Buffer) -> Hits {
    if app.present
        && let Some((words, rest)) = large(app, area, buf)
    {
        return if rest.height < 4 || words == 0 { Hits::default() } else { (beneath(app).spec().draw)(app, rest, buf) };
    }
    let said = lines(app, usize::from(area.width.saturating_sub(4)));
    let height = (said.len() as u16 + 2).clamp(5, area.height);
    let [words, rest] = Layout::vertical([Constraint::Length(height), Constraint::Fill(1)]).areas(area);
    let title = app.lesson.as_ref().and_then(|place| {
        let chapter = app.lessons.get(place.chapter)?;
        Some(format!("{} of {} · {} · {} of {}", place.chapter + 1, app.lessons.len(), chapter.title, place.at + 1, chapter.places()))
    });
    let inner = panel(buf, words, &title.unwrap_or_else(|| "Learn".into()), app.look);
    for ((line, style), y) in said.iter().zip(0..inner.height) {
        put(buf, inner, 1, y, line, *style);
    }
    if rest.height < 4 {
        return Hits::default();
    }
    (beneath(app).spec().draw)(app, rest, buf)
}
