//! What integers gain here: one picture through the network in floats, fake-quantized and in integers, timed in alternating rounds.

use std::time::Instant;

use super::core::Session;
use crate::analysis::ArithmeticReport;
use crate::cpu;
use crate::error::{Error, Result};
use crate::model::{Identity, forward};
use crate::progress::Cancel;
use crate::quant::run::run_integer;
use crate::quant::{Arithmetic, Plan, Settings, Start, run};

/// Rounds whose median is told.
const ROUNDS: usize = 5;

impl Session {
    /// Times the three ways to run picture `index` under `settings`.
    ///
    /// # Errors
    /// When the picture cannot be read, the settings do not fit, or `cancel` was called.
    pub fn time_arithmetics(&self, index: usize, settings: &Settings, cancel: &Cancel) -> Result<ArithmeticReport> {
        let (base, network) = (self.base(index)?, self.opened().model.network());
        let pixels = &base.prepared.tensor;
        let fake = Plan { arithmetic: Arithmetic::FakeQuantized, ..self.plan_until(settings, cancel)? };
        let mut times: [Vec<f64>; 3] = Default::default();
        let mut told = None;
        for _ in 0..ROUNDS {
            let [float, quantized, integer] = &mut times;
            cpu::in_pool(|| {
                cancel.check()?;
                float.push(milliseconds(|| forward(network, pixels, &mut Identity).map(drop))?);
                quantized.push(milliseconds(|| run(network, Start::pixels(pixels), &fake, cancel).map(drop))?);
                integer.push(milliseconds(|| {
                    told = Some(run_integer(network, Start::pixels(pixels), &fake, cancel)?.1);
                    Ok(())
                })?);
                Ok::<_, Error>(())
            })?;
        }
        let [float_ms, fake_quantized_ms, integer_ms] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        });
        let told = told.unwrap_or_default();
        let float_products = told.float.iter().map(|(site, why)| (site.to_string(), (*why).to_string())).collect();
        Ok(ArithmeticReport {
            rounds: ROUNDS,
            float_ms,
            fake_quantized_ms,
            integer_ms,
            integer_products: told.integer.len(),
            float_products,
        })
    }
}

fn milliseconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    work()?;
    Ok(1000.0 * started.elapsed().as_secs_f64())
}
