//! A weight as the integer kernel takes it: codes of 8 bits with a sign, packed once.

use candle_core::Tensor;
use rten_gemm::{GemmExecutor, PackedBMatrix};
use rten_tensor::NdTensorView;

use super::uniform::UniformQuantizer;
use crate::error::{Error, Result};
use crate::model::kernels;

/// What is taken from codes, so that they have a sign.
pub(super) const MIDDLE: f32 = 128.0;

thread_local! {
    /// The integer kernel for this processor, chosen once a thread: asking the processor what it can do is slow in a virtual machine.
    pub(super) static INTEGER: GemmExecutor<u8, i8, i32> = GemmExecutor::new();
}

/// A weight as the integer kernel takes it.
pub struct IntegerWeight {
    /// `C_out`
    pub(super) outputs: usize,
    /// `C`
    pub(super) inputs: usize,
    /// `(C, C_out)`, codes less 128.
    codes: Vec<i8>,
    /// All of it, for inputs of one group.
    pub(super) packed: PackedBMatrix<i8>,
    /// `t_o`
    pub(super) scale: Vec<f32>,
    /// Zero points less 128.
    pub(super) zero: Vec<i32>,
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

impl IntegerWeight {
    /// The codes of the float weight `(C_out, C)` under its quantizers.
    ///
    /// # Errors
    /// When it does not have two dimensions.
    pub fn new(float: &Tensor, quantizers: &[UniformQuantizer]) -> Result<Self> {
        let (outputs, inputs) = float.dims2()?;
        let mut codes = vec![0_i8; outputs * inputs];
        kernels::with_values(float, |values| {
            for (output, (row, quantizer)) in values.chunks_exact(inputs).zip(quantizers).enumerate() {
                for (input, &w) in row.iter().enumerate() {
                    codes[input * outputs + output] = (quantizer.code(w).0 as f32 - MIDDLE) as i8;
                }
            }
        })?;
        let view = matrix(&codes, (inputs, outputs), (outputs, 1))?;
        let packed = INTEGER.with(|integer| integer.prepack_b(view));
        let zero = quantizers.iter().map(|q| (q.zero_point - MIDDLE) as i32).collect();
        Ok(Self { outputs, inputs, codes, packed, scale: quantizers.iter().map(|q| q.scale).collect(), zero })
    }

    /// The rows of some input channels, packed.
    pub(super) fn of_channels(&self, channels: &[u32]) -> Result<PackedBMatrix<i8>> {
        let mut rows = Vec::with_capacity(channels.len() * self.outputs);
        for &channel in channels {
            rows.extend_from_slice(&self.codes[channel as usize * self.outputs..][..self.outputs]);
        }
        let view = matrix(&rows, (channels.len(), self.outputs), (self.outputs, 1))?;
        Ok(INTEGER.with(|integer| integer.prepack_b(view)))
    }
}
