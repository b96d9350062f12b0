//! The screen's state without a terminal.

use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use igq::engine::{Event, Request};
use igq::progress::Cancel;
use igq::quant::Settings;
use igq::session::Session;
use igq::tui::app::App;
use igq::tui::frame;
use igq::tui::message::{Effect, Message};
use igq::tui::theme::{Depth, Look, ThemeName};
use igq::tui::update::update;

/// Dark, all glyphs, all colours.
pub const LOOK: Look = Look { theme: ThemeName::Dark, ascii: false, depth: Depth::True };

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

/// Answers a request as the engine does.
pub fn answer(app: &mut App, session: &Session, request: &Request) {
    let cancel = Cancel::default();
    let mut snapshot = session.run(request.picture, &request.settings, &cancel).unwrap().snapshot(request.id, request.picture);
    if let Some(second) = request.compare {
        let compared = session.run(second, &request.settings, &cancel).unwrap();
        snapshot.compare = Some(Box::new(compared.snapshot(request.id, second)));
    }
    update(app, Message::Engine(Event::Snapshot(Arc::new(snapshot))));
}

/// A screen that shows the first run.
pub fn filled(session: &Session) -> App {
    let mut app = app(session);
    let first = app.request();
    answer(&mut app, session, &first);
    app
}

/// What is drawn, without colours.
pub fn text(app: &App, width: u16, height: u16) -> String {
    frame::to_text(&frame::render(app, width, height).unwrap())
}
