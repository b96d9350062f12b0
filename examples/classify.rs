//! Classify the first built-in pictures with the float model: input and model only, no quantization.

use igq::Result;
use igq::input::{PictureSet, Preprocess};
use igq::model::{Identity, Model, forward};

fn main() -> Result<()> {
    let model = Model::open("fashion-vit")?;
    println!("{}", model.describe());
    let preprocess = Preprocess::from_config(model.raw_config.as_ref(), None, model.config.in_chans(), model.config.image_size())?;
    for source in PictureSet::fashion_test().pictures.iter().take(8) {
        let picture = source.load()?;
        let output = forward(model.network(), &preprocess.apply(&picture)?.tensor, &mut Identity)?;
        let class = output.classes()?.argmax(1)?.to_vec1::<u32>()?[0] as usize;
        let truth = picture.label.map_or("?", |label| &model.labels[label]);
        println!("{}: {} (truly {truth})", picture.name, model.labels[class]);
    }
    Ok(())
}
