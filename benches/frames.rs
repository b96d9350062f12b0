//! The time of one frame of every view at 200x60: `cargo bench --bench frames -- [MODEL]` (default: the built-in model). Median and longest of
//! 50 frames, with everything on the screen that a run and the fast estimate know.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use igq::progress::Cancel;
use igq::session::{Options, Request, Session, Stage};
use igq::studies::allocate;
use igq::tui::app::App;
use igq::tui::choice::View;
use igq::tui::{frame, studies, theme, view};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    igq::cpu::run_side_by_side();
    let mut options = Options { calibration_images: 4, ..Options::default() };
    if let Some(model) = std::env::args().skip(1).find(|arg| !arg.starts_with("--")) {
        options.model = model;
    }
    let session = Session::open(&options, &|_| ()).unwrap();
    let settings = session.opened().settings.clone();
    let mut app = App::new(session.opened().info(), settings.clone(), theme::Look::resolve(None, &[], false, true));
    let request = Request { id: 0, settings: settings.clone(), picture: 0, compare: None };
    let mut outcome = None;
    let told = &mut |stage| match stage {
        Stage::Predicted(predicted) => app.predicted = Some(predicted),
        Stage::Measured(snapshot, measured) => {
            app.show(snapshot);
            outcome = Some(measured);
        }
        Stage::Swept(found, ..) => app.learn_sensitivity(&found),
        Stage::Blamed(blame) => app.learn_blame(blame),
        Stage::Lens(points) => app.lens_of = Some((0, points)),
        Stage::Timed(_) => {}
    };
    session.answer(&request, &Cancel::default(), told).unwrap();
    app.studies.learn(Arc::new(allocate::estimated(&session, &studies::base(&settings)).unwrap()));
    app.budget.renew(&app.settings, &app.studies);
    for view in View::all() {
        app.view = view;
        if let (Some(wanted), Some(outcome)) = (view::wanted_detail(&app), &outcome) {
            app.detail = session.detail(outcome, wanted.id, wanted.site).map(Arc::new);
            app.clamp();
        }
        let mut times: Vec<f64> = (0..51)
            .map(|_| {
                let started = Instant::now();
                black_box(frame::render(&app, 200, 60).unwrap());
                1000.0 * started.elapsed().as_secs_f64()
            })
            .skip(1)
            .collect();
        times.sort_by(f64::total_cmp);
        println!("{}, {}: {:.2} ms (median), {:.2} ms (longest)", session.opened().model.name, view.name(), times[25], times[49]);
    }
}
