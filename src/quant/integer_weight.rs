//! A weight as the integer kernel takes it: codes of 8 bits with a sign, packed once.

use multiversion::multiversion;
use rten_gemm::{GemmExecutor, PackedBMatrix};
use rten_tensor::NdTensorView;

use super::uniform::UniformQuantizer;
use crate::error::{Error, Result};

/// What is taken from codes, so that they have a sign and are no larger than they must be: a kernel without VNNI has 16 bits for two products.
pub(super) fn middle(quantizer: &UniformQuantizer) -> i16 {
    (quantizer.max_code as i16 + 1) / 2
}

thread_local! {
    /// The integer kernel for this processor, chosen once a thread: asking the processor what it can do is slow in a virtual machine.
    pub(super) static INTEGER: GemmExecutor<u8, i8, i32> = GemmExecutor::new();
}

/// Output channels that are multiplied at once: the kernel does not split so few over threads, and the sums stay in the nearest cache.
pub(super) const COLUMNS: usize = 128;

/// A weight as the integer kernel takes it.
pub struct IntegerWeight {
    /// `C_out`
    pub(super) outputs: usize,
    /// `C`
    pub(super) inputs: usize,
    /// `(C, C_out)`, codes less the middle one.
    codes: Vec<i8>,
    /// All of it, for inputs of one group.
    whole: Part,
    /// `t_o`
    pub(super) scale: Vec<f32>,
    /// Zero points less the middle code.
    pub(super) zero: Vec<f32>,
}

/// The rows of some input channels.
pub(super) struct Part {
    /// For [`COLUMNS`] output channels each.
    pub(super) packed: Vec<PackedBMatrix<i8>>,
    /// For each output channel the sum of its codes.
    pub(super) sums: Vec<i32>,
}

impl std::fmt::Debug for IntegerWeight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IntegerWeight({}, {})", self.outputs, self.inputs)
    }
}

/// A view of codes as a matrix.
pub(super) fn matrix<T>(values: &[T], shape: (usize, usize), stride: (usize, usize)) -> Result<NdTensorView<'_, T, 2>> {
    let wrong = |e| Error::content("a matrix of codes", format!("its layout does not fit its values ({e:?})"), "report this");
    NdTensorView::from_data_with_strides([shape.0, shape.1], values, [stride.0, stride.1]).map_err(wrong)
}

/// Codes `(rows, outputs)`, packed.
fn pack(codes: &[i8], rows: usize, outputs: usize) -> Result<Part> {
    let chunk = |first: usize| {
        let view = matrix(&codes[first..], (rows, COLUMNS.min(outputs - first)), (outputs, 1))?;
        Ok(INTEGER.with(|integer| integer.prepack_b(view)))
    };
    let packed = (0..outputs).step_by(COLUMNS).map(chunk).collect::<Result<_>>()?;
    let mut sums = vec![0_i32; outputs];
    add_rows(&mut sums, codes);
    Ok(Part { packed, sums })
}

/// Adds rows of codes up, column by column.
#[multiversion(targets = "simd")]
fn add_rows(sums: &mut [i32], codes: &[i8]) {
    for row in codes.chunks_exact(sums.len().max(1)) {
        for (sum, &code) in sums.iter_mut().zip(row) {
            *sum += i32::from(code);
        }
    }
}

impl IntegerWeight {
    /// Codes `(C_out, C)` under one quantizer for each output channel.
    ///
    /// # Errors
    /// When the kernel refuses the shapes.
    pub fn new(of_weight: &[u8], (outputs, inputs): (usize, usize), quantizers: &[UniformQuantizer]) -> Result<Self> {
        let mut codes = vec![0_i8; outputs * inputs];
        for (output, (row, quantizer)) in of_weight.chunks_exact(inputs).zip(quantizers).enumerate() {
            for (input, &code) in row.iter().enumerate() {
                codes[input * outputs + output] = (i16::from(code) - middle(quantizer)) as i8;
            }
        }
        let whole = pack(&codes, inputs, outputs)?;
        let zero = quantizers.iter().map(|q| q.zero_point - f32::from(middle(q))).collect();
        Ok(Self { outputs, inputs, codes, whole, scale: quantizers.iter().map(|q| q.scale).collect(), zero })
    }

    /// All input channels.
    pub(super) const fn whole(&self) -> &Part {
        &self.whole
    }

    /// Some input channels.
    pub(super) fn of_channels(&self, channels: &[u32]) -> Result<Part> {
        let mut rows = Vec::with_capacity(channels.len() * self.outputs);
        for &channel in channels {
            rows.extend_from_slice(&self.codes[channel as usize * self.outputs..][..self.outputs]);
        }
        pack(&rows, channels.len(), self.outputs)
    }
}
