//! The whole method without a screen: calibrate, fit group quantizers, quantize weights, run, compare.

use igq::Result;
use igq::analysis::Prediction;
use igq::input::{PictureSet, Preprocess};
use igq::model::{Identity, Model, forward};
use igq::progress::Cancel;
use igq::quant::{BitWidth, FitCache, Settings, Start, calibrate, plan, run};

fn main() -> Result<()> {
    let model = Model::open("fashion-vit")?;
    let network = model.network();
    let preprocess = Preprocess::from_config(model.raw_config.as_ref(), None, model.config.in_chans(), model.config.image_size())?;
    let tensors =
        |set: &PictureSet| set.pictures.iter().take(32).map(|p| Ok(preprocess.apply(&p.load()?)?.tensor)).collect::<Result<Vec<_>>>();

    // 1. Ranges of every channel of every calibration picture, kept apart.
    let cancel = Cancel::default();
    let calibration = calibrate(network, &tensors(&PictureSet::fashion_calibration())?, &cancel, |_| ())?;
    let pictures = tensors(&PictureSet::fashion_test())?;
    for bits in BitWidth::ALL {
        // 2. Group quantizers for the activations and the softmax rows, percentile bounds for the weights.
        let settings = Settings { wbits: bits, abits: bits, sbits: bits, ..Settings::default() };
        let plan = plan(&model, &calibration, &settings, &FitCache::default())?;
        let mut kl = 0.0;
        for picture in &pictures {
            // 3. Each picture assigns its own channels to the groups, and is quantized with them.
            let float = Prediction::of_one(&forward(network, picture, &mut Identity)?)?;
            let quantized = Prediction::of_one(&run(network, Start::pixels(picture), &plan, &cancel)?)?;
            kl += quantized.against(&float).kl;
        }
        println!("{bits:>2} bits: mean KL {:.5} over {} pictures", kl / pictures.len() as f64, pictures.len());
    }
    Ok(())
}
