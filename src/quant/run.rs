//! The quantized run: a [`Plan`] says what every site does under the settings, and [`run`] does it.

use candle_core::Tensor;

use super::choices::Arithmetic;
use super::fake::FakeQuantize;
pub use super::fake::{Observation, fake_quantize, fake_quantize_picture};
use super::integer::{IntegerTap, Multiplied};
use super::pins::{Looks, Pins};
use super::plan::Plan;
use crate::error::Result;
use crate::model::output::First;
use crate::model::{Network, Output, Stream, Trace, forward_from, trace_from};
use crate::progress::Cancel;

/// Where a pass starts: at the pixels, or at a boundary that an earlier pass left.
#[derive(Debug, Clone)]
pub struct Start<'s> {
    step: usize,
    stream: Stream,
    pins: Option<&'s First>,
    looks: Option<Looks>,
}

impl<'s> Start<'s> {
    /// At the pixels `(B, C, height, width)`.
    #[must_use]
    pub fn pixels(pixels: &Tensor) -> Self {
        Self::stream(0, &pixels.clone().into())
    }

    /// At the input of `step`, which is `stream`.
    #[must_use]
    pub fn stream(step: usize, stream: &Stream) -> Self {
        Self { step, stream: stream.clone(), pins: None, looks: None }
    }

    /// At the input of `step`, as `trace` left it, with the proposals of its first stage, where it has one.
    #[must_use]
    pub fn at(trace: &'s Trace, step: usize) -> Self {
        Self::stream(step, &trace.boundaries[step]).pinned(&trace.output)
    }

    /// The same with the proposals of a float run of the same pictures: query by query both runs mean the same then, and the KL is defined. A
    /// run says what it finds with proposals of its own beside it, as [`Output::free`].
    #[must_use]
    pub fn pinned(self, float: &'s Output) -> Self {
        self.with(float.first.as_ref())
    }

    /// The same with what a first stage chose, if there is one.
    #[must_use]
    pub fn with(self, pins: Option<&'s First>) -> Self {
        Self { pins, ..self }
    }

    /// The same where nobody looks at anything but the KL: what a detector sees with proposals of its own is left out, and so are its masks.
    #[must_use]
    pub fn for_kl(self) -> Self {
        Self { looks: Some(Looks::Kl), ..self }
    }

    /// The same without masks: objects are matched by their boxes.
    #[must_use]
    pub fn without_masks(self) -> Self {
        Self { looks: Some(Looks::Boxes), ..self }
    }

    fn pins(&self, looks: Looks) -> Pins<'s> {
        Pins::of(self.pins, self.looks.unwrap_or(looks))
    }
}

/// Runs `network` from `start` on as `plan` says. With [`run_observed`] and [`run_traced_observed`], which keep more, the only place that puts a
/// plan into a network.
///
/// # Errors
/// When the plan does not cover a site, or `cancel` was called.
pub fn run(network: &dyn Network, start: Start, plan: &Plan, cancel: &Cancel) -> Result<Output> {
    match plan.arithmetic {
        Arithmetic::FakeQuantized => {
            let (pins, observe) = (start.pins(Looks::Prediction), |_: &Observation| Ok(()));
            forward_from(network, start.step, &start.stream, &mut FakeQuantize { plan, cancel, observe, pins })
        }
        Arithmetic::Integer => Ok(run_integer(network, start, plan, cancel)?.0),
    }
}

/// The same, showing every site to `observe`.
///
/// # Errors
/// As [`run`], and what `observe` returns.
pub fn run_observed<F>(network: &dyn Network, start: Start, plan: &Plan, cancel: &Cancel, observe: F) -> Result<Output>
where
    F: FnMut(&Observation) -> Result<()>,
{
    let pins = start.pins(Looks::Operands);
    match plan.arithmetic {
        Arithmetic::FakeQuantized => forward_from(network, start.step, &start.stream, &mut FakeQuantize { plan, cancel, observe, pins }),
        Arithmetic::Integer => forward_from(network, start.step, &start.stream, &mut IntegerTap::new(plan, cancel, pins, Some(observe))),
    }
}

/// The same, keeping the residual stream at every boundary from there on.
///
/// # Errors
/// As [`run`].
pub fn run_traced(network: &dyn Network, start: Start, plan: &Plan, cancel: &Cancel) -> Result<Trace> {
    run_traced_observed(network, start, plan, cancel, |_| Ok(()))
}

/// The same from `start` on, showing every site to `observe` and keeping the residual stream at every boundary from there on.
///
/// # Errors
/// As [`run`], and what `observe` returns.
pub fn run_traced_observed<F>(network: &dyn Network, start: Start, plan: &Plan, cancel: &Cancel, observe: F) -> Result<Trace>
where
    F: FnMut(&Observation) -> Result<()>,
{
    let pins = start.pins(Looks::Operands);
    match plan.arithmetic {
        Arithmetic::FakeQuantized => trace_from(network, start.step, &start.stream, &mut FakeQuantize { plan, cancel, observe, pins }),
        Arithmetic::Integer => trace_from(network, start.step, &start.stream, &mut IntegerTap::new(plan, cancel, pins, Some(observe))),
    }
}

/// Runs `network` from `start` on as `plan` says, in integers wherever that can be, and says where it could.
///
/// # Errors
/// As [`run`].
pub fn run_integer(network: &dyn Network, start: Start, plan: &Plan, cancel: &Cancel) -> Result<(Output, Multiplied)> {
    let mut tap = IntegerTap::new(plan, cancel, start.pins(Looks::Prediction), None::<fn(&Observation) -> Result<()>>);
    let output = forward_from(network, start.step, &start.stream, &mut tap)?;
    Ok((output, tap.told))
}
