//! The state of the screen: plain values. It changes only in `update` and is only read by `view`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::budget::Budget;
use super::choice::{Beside, Map, Overlay, Scope, Sort, View};
use super::history::History;
use super::hit::Hits;
use super::lessons::{self, Chapter, Place};
use super::studies::Studies;
use super::theme::Look;
use crate::analysis::detail::{AttentionMap, SiteDetail};
use crate::analysis::findings;
use crate::analysis::report::LensPoint;
use crate::analysis::report::{Blame, PredictionReport, Report, Sensitivity, SiteReport};
use crate::engine::{DetailRequest, Request};
use crate::model::Site;
use crate::progress::Progress;
use crate::quant::Settings;
use crate::session::{Predicted, SessionInfo, Snapshot, saved};

/// A line for the user, until the next key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What it says.
    pub text: String,
    /// Whether something went wrong.
    pub is_error: bool,
}

/// The whole state.
#[derive(Debug, Clone)]
pub struct App {
    /// What is known about the session.
    pub info: SessionInfo,
    /// The settings of the start.
    pub initial: Settings,
    /// The settings as wanted now.
    pub settings: Settings,
    /// How the screen looks.
    pub look: Look,
    /// Columns and rows of the terminal.
    pub size: (u16, u16),
    /// The view.
    pub view: View,
    /// What the last frame drew that a click can land on.
    pub hits: Hits,
    /// Index of the picture as wanted now.
    pub picture: usize,
    /// Index of the second picture, while comparing.
    pub compare: Option<usize>,
    /// The selected site.
    pub site: Site,
    /// The channel under the cursor.
    pub channel: usize,
    /// The only group whose members are shown; none for all.
    pub only_group: Option<usize>,
    /// Whether the groups are compared with those of the pinned answer.
    pub against_pinned: bool,
    /// Whether bars are as high as the channels shown are, and not as all are.
    pub zoomed: bool,
    /// Whether two channels share a column.
    pub dense: bool,
    /// Whether channels stand in the order of their groups.
    pub by_group: bool,
    /// Whether the channels' scale is logarithmic.
    pub logarithmic: bool,
    /// Whose values are shown together.
    pub scope: Scope,
    /// The head that is shown.
    pub head: usize,
    /// The query token under the cursor.
    pub token: usize,
    /// What the attention map shows.
    pub map: Map,
    /// What stands beside it.
    pub beside: Beside,
    /// Probability from which on objects of a detector are shown.
    pub threshold: f64,
    /// The object under the cursor.
    pub object: usize,
    /// What is drawn over the picture.
    pub overlay: Overlay,
    /// Whether only the object under the cursor is seen of the picture.
    pub close_up: bool,
    /// What the sites are sorted by.
    pub sort: Sort,
    /// Whether the order is turned around.
    pub sort_reversed: bool,
    /// The column that quantizers are sorted by, and whether the largest come first.
    pub by: Option<(&'static str, bool)>,
    /// The word under the mouse.
    pub hover: Option<&'static str>,
    /// What the help is searched for, and whether it is being typed.
    pub sought: Option<(String, bool)>,
    /// Only sites that hold this are shown.
    pub filter: String,
    /// Whether the filter is being typed.
    pub filtering: bool,
    /// The command that is being typed.
    pub palette: Option<String>,
    /// Commands that were typed, the newest last.
    pub said: Vec<String>,
    /// Whether the help is open, and how far it is scrolled.
    pub help: Option<u16>,
    /// What the newest request predicts; its measures follow.
    pub predicted: Option<Arc<Predicted>>,
    /// The newest answer.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Details of one site of that answer.
    pub detail: Option<Arc<SiteDetail>>,
    /// The details that were asked for last.
    pub asked_detail: Option<DetailRequest>,
    /// What is to blame for what that answer's prediction lost, and the verdict that says so.
    pub blame: Option<(Blame, String)>,
    /// Sensitivities of that answer, as far as the sweep is.
    pub sensitivity: HashMap<Site, Sensitivity>,
    /// What both runs would answer after every block, and the request that the runs answered.
    pub lens_of: Option<(u64, Vec<LensPoint>)>,
    /// The lessons.
    pub lessons: Arc<Vec<Chapter>>,
    /// Whether only a lesson and its panel are drawn, for a projector.
    pub present: bool,
    /// The run that follows once the one to be pinned is answered, of a session that is opened again.
    pub resume: Option<(Settings, usize, Option<usize>)>,
    /// Paths that were opened after the start.
    pub opened: Vec<PathBuf>,
    /// Paths that are being opened.
    pub opening: Vec<PathBuf>,
    /// Number of pictures at the start.
    pub first_count: usize,
    /// Where one is in them; none until they are opened.
    pub lesson: Option<Place>,
    /// The newest request.
    pub wanted: u64,
    /// Studies: what is under way, what was found.
    pub studies: Studies,
    /// The budget and its counts.
    pub budget: Budget,
    /// The row of the comparison under the cursor.
    pub row: usize,
    /// The answer that was pinned, A of "A against B".
    pub pinned: Option<Arc<Snapshot>>,
    /// Details of a site of that answer.
    pub pinned_detail: Option<Arc<SiteDetail>>,
    /// Steps of the settings.
    pub history: History,
    /// How far the engine is.
    pub progress: Progress,
    /// A line for the user.
    pub notice: Option<Notice>,
    /// Why there is nothing to show, as long as there is not.
    pub failure: Option<String>,
    /// Why nothing can run, if so.
    pub broken: Option<String>,
}

impl App {
    /// A screen that has seen no run yet.
    #[must_use]
    pub fn new(info: SessionInfo, settings: Settings, look: Look) -> Self {
        let threshold = info.threshold;
        let widest = info.sites.iter().find(|s| s.kind == crate::model::SiteKind::Fc2);
        let site = widest.or(info.sites.first()).copied().unwrap_or(Site::outside(crate::model::SiteKind::Head));
        let first_count = info.picture_count;
        Self {
            info,
            initial: settings.clone(),
            settings,
            look,
            size: (80, 24),
            view: View::default(),
            hits: Hits::default(),
            picture: 0,
            compare: None,
            site,
            channel: 0,
            only_group: None,
            against_pinned: false,
            zoomed: false,
            dense: false,
            by_group: true,
            logarithmic: false,
            scope: Scope::Site,
            head: 0,
            token: 0,
            map: Map::Quantized,
            beside: Beside::Groups,
            threshold,
            object: 0,
            overlay: Overlay::Both,
            close_up: false,
            sort: Sort::Order,
            sort_reversed: false,
            by: None,
            hover: None,
            sought: None,
            filter: String::new(),
            filtering: false,
            palette: None,
            said: Vec::new(),
            help: None,
            predicted: None,
            blame: None,
            snapshot: None,
            detail: None,
            asked_detail: None,
            sensitivity: HashMap::new(),
            lens_of: None,
            lessons: lessons::built_in(),
            present: false,
            lesson: None,
            resume: None,
            opened: Vec::new(),
            opening: Vec::new(),
            first_count,
            wanted: 0,
            studies: Studies::default(),
            budget: Budget::default(),
            row: 0,
            pinned: None,
            pinned_detail: None,
            history: History::default(),
            progress: Progress::default(),
            notice: None,
            failure: None,
            broken: None,
        }
    }

    /// Tells the user something.
    pub fn say(&mut self, text: impl Into<String>) {
        self.notice = Some(Notice { text: text.into(), is_error: false });
    }

    /// Tells the user that something went wrong.
    pub fn complain(&mut self, text: impl Into<String>) {
        self.notice = Some(Notice { text: text.into(), is_error: true });
    }

    /// Whether what is shown is not what is wanted.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.snapshot.as_ref().is_none_or(|s| s.id != self.wanted)
    }

    /// The request for what is wanted now, as the newest.
    pub fn request(&mut self) -> Request {
        self.wanted += 1;
        self.history.asked(self.wanted);
        Request { id: self.wanted, settings: self.settings.clone(), picture: self.picture, compare: self.compare }
    }

    /// The flags of the run that is wanted now.
    #[must_use]
    pub fn flags(&self) -> Vec<saved::Flag> {
        saved::flags(&self.info, &self.opened, self.first_count, &self.settings, self.picture)
    }

    /// The command line that gives the run that is wanted now.
    #[must_use]
    pub fn command(&self) -> String {
        saved::command(&self.flags())
    }

    /// Selects a site; false if the model has no such site.
    pub fn select(&mut self, site: Site) -> bool {
        let known = self.info.sites.contains(&site);
        if known {
            // The groups of another site are others.
            self.only_group = self.only_group.filter(|_| self.site == site);
            self.site = site;
            self.clamp();
        }
        known
    }

    /// Shows an answer of the engine.
    pub fn show(&mut self, snapshot: Arc<Snapshot>) {
        self.sensitivity.clear();
        self.blame = None;
        (self.snapshot, self.failure) = (Some(snapshot), None);
        self.clamp();
    }

    /// Takes sensitivities of the answer that is shown.
    pub fn learn_sensitivity(&mut self, found: &[(Site, Sensitivity)]) {
        self.sensitivity.extend(found.iter().copied());
    }

    /// A report with what the sweep has found for it so far, as the screen shows it.
    #[must_use]
    pub fn report_with_sweep(&self, report: &Report) -> Report {
        let mut report = report.clone();
        report.lens = self.lens().map(<[LensPoint]>::to_vec).unwrap_or_default();
        for site in &mut report.sites {
            site.only_this = self.sensitivity.get(&site.site).copied();
        }
        if let Some((blame, verdict)) = &self.blame {
            (report.blame, report.verdict) = (Some(blame.clone()), verdict.clone());
        }
        report
    }

    /// Takes what is to blame for what the prediction shown lost.
    pub fn learn_blame(&mut self, blame: Blame) {
        let Some(snapshot) = &self.snapshot else { return };
        let report = Report { blame: Some(blame.clone()), ..self.report_with_sweep(&snapshot.report) };
        self.blame = Some((blame, findings::verdict_after_sweep(&report)));
    }

    /// What both runs of what is shown would answer after every block.
    #[must_use]
    pub fn lens(&self) -> Option<&[LensPoint]> {
        let (id, points) = self.lens_of.as_ref()?;
        (*id == self.snapshot.as_ref()?.id).then_some(points)
    }

    /// The verdict on what is shown.
    #[must_use]
    pub fn verdict(&self) -> Option<&str> {
        let told = self.blame.as_ref().map(|(_, verdict)| verdict.as_str());
        told.or_else(|| self.snapshot.as_ref().map(|s| s.report.verdict.as_str()))
    }

    /// The same with the objects of a detector over the threshold of the screen.
    #[must_use]
    pub fn sentence(&self) -> Option<String> {
        let verdict = self.verdict()?;
        let objects = self.snapshot.as_ref()?.report.prediction.objects.as_ref();
        let rest = objects.and_then(|objects| Some((objects, verdict.strip_prefix(&objects.describe())?)));
        Some(rest.map_or_else(|| verdict.to_string(), |(objects, rest)| format!("{}{rest}", objects.at(self.threshold).describe())))
    }

    /// The report of the selected site.
    #[must_use]
    pub fn site_report(&self) -> Option<&SiteReport> {
        self.snapshot.as_ref()?.report.site(self.site)
    }

    /// The softmax site of the selected block; the first of the model outside of blocks.
    #[must_use]
    pub fn attention_site(&self) -> Option<Site> {
        let softmaxes = || self.info.sites.iter().filter(|s| s.kind.is_softmax());
        let place = |site: &Site| (site.part, site.stage, site.block);
        softmaxes().find(|s| place(s) == place(&self.site)).or_else(|| softmaxes().next()).copied()
    }

    /// The attention of [`Self::attention_site`], once it has been told.
    #[must_use]
    pub fn attention(&self) -> Option<&AttentionMap> {
        let (detail, shown) = (self.detail.as_ref()?, self.snapshot.as_ref()?);
        (detail.id == shown.id && Some(detail.site) == self.attention_site()).then_some(detail.attention.as_ref()?)
    }

    /// The prediction to show: the newest that was told, which may come before its measures.
    #[must_use]
    pub fn prediction(&self) -> Option<&PredictionReport> {
        let measured = self.snapshot.as_ref();
        match &self.predicted {
            Some(newer) if measured.is_none_or(|m| m.id < newer.id) => Some(&newer.prediction),
            _ => measured.map(|m| &m.report.prediction),
        }
    }

    /// The channels of the selected site in the order in which they stand, by the first picture.
    #[must_use]
    pub fn channel_order(&self) -> Vec<usize> {
        let Some(report) = self.site_report() else { return Vec::new() };
        let mut order: Vec<usize> = (0..report.ranges.min.len()).collect();
        if let Some(only) = self.only_group.filter(|only| report.assignment.iter().any(|&g| usize::from(g) == *only)) {
            order.retain(|&c| report.assignment.get(c).is_some_and(|&g| usize::from(g) == only));
        }
        if self.by_group && !report.assignment.is_empty() {
            order.sort_by_key(|&c| report.assignment[c]);
        }
        order
    }

    /// Columns that the longest address takes; no less than those of a plain ViT.
    #[must_use]
    pub fn site_width(&self) -> u16 {
        self.info.sites.iter().map(|site| site.to_string().len() as u16).max().unwrap_or(0).max(14)
    }

    /// Sites as the table shows them: filtered and sorted.
    #[must_use]
    pub fn visible_sites(&self) -> Vec<Site> {
        let matches = |site: &&Site| self.filter.is_empty() || site.to_string().contains(&self.filter);
        let mut sites: Vec<Site> = self.info.sites.iter().filter(matches).copied().collect();
        if let Some(snapshot) = &self.snapshot {
            // Worst first: the key grows with the loss; sites without a number come last.
            let key = |site: &Site| -> f64 {
                let Some(r) = snapshot.report.site(*site) else { return f64::NEG_INFINITY };
                match self.sort {
                    Sort::Order => 0.0,
                    Sort::Local => r.local.error.sqnr_db.map_or(f64::NEG_INFINITY, |db| -db),
                    Sort::Cumulative => r.cumulative.sqnr_db.map_or(f64::NEG_INFINITY, |db| -db),
                    Sort::Steps => r.local.rmse_over_step,
                    Sort::Clipped => r.local.clipped,
                    Sort::Alone => self.sensitivity.get(site).map_or(f64::NEG_INFINITY, |s| s.kl),
                }
            };
            sites.sort_by(|a, b| key(b).total_cmp(&key(a)));
        }
        if self.sort_reversed {
            sites.reverse();
        }
        sites
    }

    /// Brings cursors back inside what is there.
    pub fn clamp(&mut self) {
        self.row = self.row.min(self.studies.comparison.as_ref().map_or(0, |c| c.rows.len().saturating_sub(1)));
        if let Some(report) = self.site_report() {
            let channels = report.ranges.min.len();
            self.channel = self.channel.min(channels.saturating_sub(1));
        }
        let map = self.attention().map(|m| (m.heads, m.layout.tokens()));
        if let Some((heads, tokens)) = map {
            self.head = self.head.min(heads.saturating_sub(1));
            self.token = self.token.min(tokens.saturating_sub(1));
        }
    }
}
