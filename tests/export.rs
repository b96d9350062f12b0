//! What `igq export` writes, checked by others: the ONNX graph by a runtime that knows nothing of igq, the weights in float64 from the file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::HashMap;
use std::fs;

use common::built_in;
use igq::progress::Cancel;
use igq::quant::{BitWidth, Method, Settings, WeightScales};
use igq::studies::export::export;
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;
use safetensors::SafeTensors;

fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
    let data = file.tensor(name).unwrap_or_else(|_| panic!("no {name}")).data().to_vec();
    data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

#[test]
fn another_runtime_gives_the_same_logits() {
    let session = built_in();
    let eight = BitWidth::new(8).unwrap();
    let settings = [
        Settings { method: Method::Float, ..Settings::default() },
        Settings::default(),
        Settings { method: Method::IgqE, ..Settings::default() },
        Settings { method: Method::Layer, wbits: eight, abits: eight, sbits: eight, ..Settings::default() },
        Settings { method: Method::Sorted, weight_scales: WeightScales::Block(32), ..Settings::default() },
        Settings { method: Method::Channel, weight_scales: "nvfp4".parse().unwrap(), ..Settings::default() },
    ];
    for settings in settings {
        let folder = tempfile::tempdir().unwrap();
        let report = export(&session, &settings, folder.path(), "igq run", &Cancel::default(), &|_| ()).unwrap();
        assert!(report.files.iter().all(|file| file.is_file()), "{report:?}");
        let model = rten::Model::load(fs::read(folder.path().join("model.onnx")).unwrap()).unwrap();
        let bytes = fs::read(folder.path().join("reference.safetensors")).unwrap();
        let reference = SafeTensors::deserialize(&bytes).unwrap();
        let (pixels, expected) = (floats(&reference, "pixels"), floats(&reference, "logits"));
        let mut apart = Vec::new();
        for (pixels, expected) in pixels.chunks_exact(28 * 28).zip(expected.chunks_exact(10)) {
            let input = NdTensor::from_data([1, 1, 28, 28], pixels.to_vec());
            let found: NdTensor<f32, 2> = model.run_one(input.view().into(), None).unwrap().try_into().unwrap();
            let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
            apart.push(differences.fold(0.0, f32::max));
        }
        // Most images to the last bits; a value on the edge between two codes may fall to either side in one of them.
        apart.sort_by(f32::total_cmp);
        assert!(apart[apart.len() / 2] < 1e-4 && apart[apart.len() - 1] < 0.5, "{}: {apart:?}", settings.describe());
    }
}

#[test]
fn weights_are_what_their_schema_says() {
    let session = built_in();
    for scales in [WeightScales::Channel, WeightScales::Block(32), "mxfp4".parse().unwrap()] {
        let settings = Settings { weight_scales: scales, ..Settings::default() };
        let folder = tempfile::tempdir().unwrap();
        export(&session, &settings, folder.path(), "igq run", &Cancel::default(), &|_| ()).unwrap();
        let bytes = fs::read(folder.path().join("weights.safetensors")).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata: HashMap<String, String> = header.metadata().clone().unwrap();
        assert_eq!(metadata["igq.format"], "1");
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let plan = session.plan(&settings).unwrap();
        let layers: Vec<_> = plan.sites.values().filter_map(|site| Some((site.info.layer.clone()?.name, site.weight.clone()?))).collect();
        assert_eq!(layers.len(), 26);
        for (name, weight) in layers {
            let (outputs, inputs) = weight.size;
            let (codes, scale) = (file.tensor(&format!("{name}.weight.codes")).unwrap(), floats(&file, &format!("{name}.weight.scale")));
            assert_eq!(codes.shape(), [outputs, inputs]);
            let (block, blocks) = (metadata[&format!("{name}.block")].parse::<usize>().unwrap(), scale.len() / outputs);
            let of_float = file.names().iter().any(|found| **found == *format!("{name}.weight.numbers"));
            let table = floats(&file, &format!("{name}.weight.{}", if of_float { "numbers" } else { "zero_point" }));
            for (at, (&code, value)) in codes.data().iter().zip(weight.values()).enumerate() {
                let place = at / inputs * blocks + at % inputs / block;
                let number = if of_float { f64::from(table[usize::from(code)]) } else { f64::from(code) - f64::from(table[place]) };
                let expected = f64::from(scale[place]) * number;
                assert!((f64::from(value) - expected).abs() <= 1e-6 * expected.abs(), "{name} at {at}: {value}, {expected}");
            }
        }
        // The settings in it are those that were exported, and can be used.
        let read =
            Settings::read(serde_json::from_str(&fs::read_to_string(folder.path().join("settings.json")).unwrap()).unwrap()).unwrap();
        assert_eq!(read, settings);
    }
}
