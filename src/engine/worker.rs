//! The thread that computes while the screen stays awake: a slot for the newest request, a bounded channel of facts, a watch for progress.
//! A newer request replaces the waiting one and ends the running one; a panic in a run is reported and the session lives on.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::sync::{mpsc, watch};

use super::command::{DetailRequest, Request, Study};
use super::event::Event;
use super::guard::guarded;
use super::out::Out;
use super::queue::{self, StudyQueue};
use crate::error::{Error, Result};
use crate::progress::{Cancel, Progress};
use crate::session::{LoadedModel, Outcome, Session, Stage};

/// Facts that may wait for the screen before the worker does.
const CHANNEL: usize = 64;

/// The slot that holds at most one waiting request.
#[derive(Default)]
struct RequestSlot {
    state: Mutex<SlotState>,
    changed: Condvar,
    /// Ends the calibration, which requests do not: they wait for it.
    leaving: Cancel,
}

#[derive(Default)]
struct SlotState {
    paths: Vec<PathBuf>,
    waiting: Option<Request>,
    detail: Option<DetailRequest>,
    running: Cancel,
    quit: bool,
}

/// The screen's end of the worker. Dropping it ends the thread.
pub struct Worker {
    slot: Arc<RequestSlot>,
    desk: Arc<StudyQueue>,
    thread: Option<JoinHandle<()>>,
}

/// What the worker tells.
pub struct Reports {
    /// Facts, in order.
    pub events: mpsc::Receiver<Event>,
    /// How far a run, its sweep or the calibration is.
    pub progress: watch::Receiver<Progress>,
    /// How far a study is.
    pub study: watch::Receiver<Progress>,
}

impl Worker {
    /// Starts the thread, which calibrates first and then answers requests.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn spawn(opened: LoadedModel) -> Result<(Self, Reports)> {
        let (send_event, events) = mpsc::channel(CHANNEL);
        let (send_progress, progress) = watch::channel(Progress::default());
        let (send_study, study) = watch::channel(Progress::default());
        let (slot, desk) = (Arc::new(RequestSlot::default()), Arc::new(StudyQueue::default()));
        let out = Out { events: send_event, progress: send_progress, study: send_study };
        let (inner, studies) = (Arc::clone(&slot), Arc::clone(&desk));
        let body = move || work(opened, &inner, &studies, &out);
        let thread = thread::Builder::new().name("igq-worker".into()).spawn(body);
        let thread = thread.map_err(|e| Error::content("worker", format!("no thread could be started ({e})"), "close other programs"))?;
        Ok((Self { slot, desk, thread: Some(thread) }, Reports { events, progress, study }))
    }

    /// Asks for a run. It replaces the waiting one and ends the running one.
    pub fn request(&self, request: Request) {
        let mut state = self.slot.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.running.cancel();
        state.waiting = Some(request);
        self.slot.changed.notify_one();
    }

    /// Asks for more pictures: `Event::Pictures`.
    pub fn open_pictures(&self, paths: Vec<PathBuf>) {
        let mut state = self.slot.state.lock().unwrap_or_else(PoisonError::into_inner);
        // The screen asks for a run again when it hears what became of the paths.
        state.running.cancel();
        state.paths.extend(paths);
        self.slot.changed.notify_one();
    }

    /// Asks for details of one site: `Event::Detail`. They are told between two sites of a sweep, which goes on.
    pub fn detail(&self, detail: DetailRequest) {
        let mut state = self.slot.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.detail = Some(detail);
        self.slot.changed.notify_one();
    }

    /// Asks for a study. It replaces the one that is under way, whose partial results were told.
    pub fn study(&self, study: Study) {
        self.desk.put(Some(study));
    }

    /// Ends the study that is under way; what it has computed is kept and told.
    pub fn stop_study(&self) {
        self.desk.put(None);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.desk.close();
        self.slot.leaving.cancel();
        {
            let mut state = self.slot.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.quit = true;
            state.running.cancel();
        }
        self.slot.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // The run ends at its next block; the screen is restored before that matters.
            let _ = thread.join();
        }
    }
}

/// What the worker does next.
enum Task {
    Open(Vec<PathBuf>),
    Run(Request, Cancel),
    Detail(DetailRequest),
}

impl RequestSlot {
    /// Details that are asked for while a run goes on.
    fn take_detail(&self) -> Option<DetailRequest> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).detail.take()
    }

    /// Waits for something to do; `None` when the screen is gone.
    fn next(&self) -> Option<Task> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.quit {
                return None;
            }
            if !state.paths.is_empty() {
                return Some(Task::Open(std::mem::take(&mut state.paths)));
            }
            if let Some(request) = state.waiting.take() {
                state.running = Cancel::default();
                return Some(Task::Run(request, state.running.clone()));
            }
            if let Some(detail) = state.detail.take() {
                return Some(Task::Detail(detail));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn work(opened: LoadedModel, slot: &RequestSlot, desk: &StudyQueue, out: &Out) {
    let progress = |progress| drop(out.progress.send_replace(progress));
    let session = match guarded(|| Session::calibrated(opened, &slot.leaving, &progress)) {
        Ok(session) => session,
        Err(Error::Cancelled) => return,
        Err(error) => return out.tell(Event::Broken(error.to_string())),
    };
    out.progress.send_replace(Progress::default());
    thread::scope(|scope| {
        // Without a thread to give, runs go on and studies wait for ever; the screen says that they are waiting.
        let studies = thread::Builder::new().name("igq-study".into()).spawn_scoped(scope, || queue::work(&session, desk, out));
        if let Err(e) = studies {
            out.tell(Event::StudyFailed(format!("no thread could be started ({e})")));
        }
        let mut last: Last = None;
        while let Some(task) = slot.next() {
            match task {
                Task::Open(paths) => out.tell(match guarded(|| session.open_pictures(&paths)) {
                    Ok((first, count)) => Event::Pictures(first, count),
                    Err(error) => Event::PicturesFailed(error.to_string()),
                }),
                Task::Run(request, cancel) => match guarded(|| answer(&session, &request, &cancel, (slot, desk), &mut last, out)) {
                    Ok(()) | Err(Error::Cancelled) => {}
                    Err(error) => out.tell(Event::Failed(request.id, error.to_string())),
                },
                Task::Detail(detail) => tell_detail(&session, detail, &last, out),
            }
            out.progress.send_replace(Progress::default());
        }
        desk.close();
    });
}

/// The outcome that details are made of, and the request that it answered.
type Last = Option<(u64, Arc<Outcome>)>;

fn tell_detail(session: &Session, wanted: DetailRequest, last: &Last, out: &Out) {
    let outcome = last.as_ref().filter(|(id, _)| *id == wanted.id);
    if let Some(detail) = outcome.and_then(|(id, outcome)| session.detail(outcome, *id, wanted.site)) {
        out.tell(Event::Detail(Arc::new(detail)));
    }
}

/// Answers a request stage by stage.
///
/// Studies stand still until everything is measured; the sweep and what is run ahead go on beside them.
fn answer(
    session: &Session,
    request: &Request,
    cancel: &Cancel,
    (slot, desk): (&RequestSlot, &StudyQueue),
    last: &mut Last,
    out: &Out,
) -> Result<()> {
    let mut closed = Some(desk.gate.close());
    let stage = |stage: &str, done, total| out.progress.send_replace(Progress { stage: stage.into(), done, total });
    stage("quantizing", 0, 0);
    session.answer(request, cancel, &mut |part| {
        match part {
            Stage::Predicted(predicted) => {
                out.tell(Event::Predicted(predicted));
                stage("measuring every site", 0, 0);
            }
            Stage::Measured(snapshot, outcome) => {
                *last = Some((request.id, outcome));
                out.tell(Event::Snapshot(snapshot));
                drop(closed.take());
                let mut details = || {
                    if let Some(wanted) = slot.take_detail() {
                        tell_detail(session, wanted, last, out);
                    }
                };
                details();
                session.plan_ahead(request, cancel, &mut details).ok(); // The sweep hears of it where it was cancelled.
            }
            Stage::Lens(points) => out.tell(Event::Lens(request.id, points)),
            Stage::Blamed(blame) => out.tell(Event::Blamed(request.id, blame)),
            Stage::Timed(report) => out.tell(Event::Timed(request.id, report)),
            Stage::Swept(found, done, total) => {
                out.tell(Event::Sensitivity(request.id, found));
                stage("one site at a time", done, total);
            }
        }
        if let Some(wanted) = slot.take_detail() {
            tell_detail(session, wanted, last, out);
        }
    })?;
    out.progress.send_replace(Progress::default());
    session.look_ahead(request, cancel)
}
