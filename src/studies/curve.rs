//! The error of one site against its number of groups, for the values of the run that is shown: how much more groups would help here.

use candle_core::D;

use crate::analysis::metrics::ErrorNumbers;
use crate::error::Result;
use crate::model::{Site, SiteInfo, kernels};
use crate::progress::Cancel;
use crate::quant::fit::Rule;
use crate::quant::group::{self, Cost, Round};
use crate::quant::ranges::{self, Along};
use crate::quant::{BitWidth, GroupCount, Settings};
use crate::session::Session;

/// Group counts that are tried.
const COUNTS: [u8; 6] = [1, 2, 4, 8, 16, 32];

/// The error of one site at several group counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// The settings of the run.
    pub settings: Settings,
    /// Index of its picture.
    pub picture: usize,
    /// The site.
    pub site: Site,
    /// Local SQNR in dB at each count.
    pub points: Vec<(GroupCount, f64)>,
    /// The rounds in which its quantizers were fitted to the calibration images.
    pub rounds: Vec<Round>,
}

/// The rounds in which the quantizers of a site were fitted; none where no alternation was.
fn rounds(session: &Session, settings: &Settings, info: &SiteInfo) -> Result<Vec<Round>> {
    let plan = session.site_plan(settings, info)?;
    let cost = match (plan.quantizers.as_ref().map(|quantizers| &quantizers.rule), plan.bits.max_code()) {
        (Some(Rule::Nearest(_) | Rule::NearestByToken), _) => Cost::Distance,
        (Some(Rule::LeastError(alpha)), Some(n)) => Cost::Error { alpha: *alpha, max_code: f64::from(n) },
        _ => return Ok(Vec::new()),
    };
    let groups = settings.groups(info.site).get();
    Ok(session.calibration().sites.get(&info.site).map_or_else(Vec::new, |ranges| group::rounds(&ranges.all(), groups, cost)))
}

/// The curve of `site` for the newest run of `picture` under `settings`; no points where that run is gone or nothing is grouped.
///
/// # Errors
/// When a quantizer cannot be fitted, or `cancel` was called.
pub fn curve(session: &Session, settings: &Settings, picture: usize, site: Site, cancel: &Cancel) -> Result<Curve> {
    let mut points = Vec::new();
    let info = session.opened().model.site(site).filter(|_| settings.method.uses_groups());
    if let (Some(info), Some(before)) = (info, session.values_before(picture, settings, site)) {
        let last = before.dim(D::Minus1)?;
        let along = Along::of(site.kind);
        let values = kernels::with_values(&before, <[f32]>::to_vec)?;
        let ranges = ranges::of_picture(along, &values, last);
        let mut quantized = vec![0.0; values.len()];
        for count in COUNTS.into_iter().filter_map(|count| GroupCount::new(count).ok()) {
            cancel.check()?;
            let mut changed = settings.clone();
            changed.set_own(site, |own| (own.groups, own.wbits) = (Some(count), Some(BitWidth::FLOAT)));
            let plan = session.site_plan(&changed, info)?;
            let grouping = plan.quantizers.as_ref().and_then(|quantizers| quantizers.group(ranges.clone(), along, plan.bits));
            let Some(grouping) = grouping else { break };
            grouping.apply(&values, &mut quantized, last);
            points.extend(ErrorNumbers::between(&values, &quantized).sqnr_db.map(|db| (count, db)));
        }
    }
    let rounds = info.map(|info| rounds(session, settings, info)).transpose()?.unwrap_or_default();
    Ok(Curve { settings: settings.clone(), picture, site, points, rounds })
}
