//! The screen's state without a terminal.

use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use igq::engine::{Event, Request};
use igq::progress::Cancel;
use igq::quant::Settings;
use igq::session::{Outcome, Session, Stage};
use igq::tui::app::App;
use igq::tui::choice::View;
use igq::tui::frame;
use igq::tui::message::{Effect, Message};
use igq::tui::theme::{Depth, Look, Theme};
use igq::tui::update::update;

/// Dark, all glyphs, all colours.
pub const LOOK: Look = Look { theme: Theme::DARK, own: &[], ascii: false, depth: Depth::True };

/// A screen that has seen no run yet.
pub fn app(session: &Session) -> App {
    App::new(session.opened().info(), Settings::default(), LOOK)
}

/// Presses a key.
pub fn press(app: &mut App, code: KeyCode) -> Vec<Effect> {
    update(app, Message::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

/// The request that a key asks for.
pub fn request(app: &mut App, key: char) -> Option<Request> {
    press(app, KeyCode::Char(key)).into_iter().find_map(|effect| if let Effect::Request(request) = effect { Some(request) } else { None })
}

/// Answers a request as the engine does, but for the sweep; what is left serves [`detail`].
pub fn answer(app: &mut App, session: &Session, request: &Request) -> Arc<Outcome> {
    let (cancel, mut outcome) = (Cancel::default(), None);
    let ended = session.answer(request, &cancel, &mut |stage| match stage {
        Stage::Predicted(predicted) => drop(update(app, Message::Engine(Event::Predicted(predicted)))),
        Stage::Measured(snapshot, measured) => {
            update(app, Message::Engine(Event::Snapshot(snapshot)));
            outcome = Some(measured);
            cancel.cancel();
        }
        Stage::Lens(points) => app.lens_of = Some((request.id, points)),
        Stage::Timed(_) | Stage::Swept(..) | Stage::Blamed(_) => {}
    });
    assert!(matches!(ended, Ok(()) | Err(igq::Error::Cancelled)), "{ended:?}");
    outcome.expect("a measured answer")
}

/// Tells the details of the softmax that the Attention view shows.
pub fn detail(app: &mut App, session: &Session, outcome: &Outcome) {
    let (id, site) = (app.snapshot.as_ref().unwrap().id, app.attention_site().unwrap());
    let detail = session.detail(outcome, id, site).unwrap();
    update(app, Message::Engine(Event::Detail(Arc::new(detail))));
}

/// A screen that shows the first run.
pub fn filled(session: &Session) -> App {
    let mut app = app(session);
    let first = app.request();
    let outcome = answer(&mut app, session, &first);
    detail(&mut app, session, &outcome);
    app
}

/// What is drawn, without colours.
pub fn text(app: &App, width: u16, height: u16) -> String {
    frame::to_text(&frame::render(app, width, height).unwrap())
}

/// Draws a frame as the loop does and clicks on a cell of it.
pub fn click(app: &mut App, size: (u16, u16), column: u16, row: u16) -> Vec<Effect> {
    app.hits = frame::draw(app, size.0, size.1).1;
    let kind = MouseEventKind::Down(MouseButton::Left);
    update(app, Message::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }))
}

/// The view of a name.
pub fn view(name: &str) -> View {
    name.parse().unwrap()
}

/// Draws every view at every size that people have: none may panic.
pub fn draw_every_view(app: &mut App) {
    for name in ["groups", "attention", "distribution", "budget", "compare", "lens"] {
        app.view = view(name);
        for (width, height) in [(50, 16), (80, 24), (120, 40), (200, 60), (20, 5)] {
            text(app, width, height);
        }
    }
}
