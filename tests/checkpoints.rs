//! Checkpoints in several files, without configuration, and broken in every way: read right or refused with a sentence that helps.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[allow(dead_code)] // Its `main`.
#[path = "../examples/make_checkpoint/main.rs"]
mod make_checkpoint;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use common::{difference, edited, golden, tensors};
use igq::model::{Identity, Model, Weights, forward};
use serde_json::json;

type Tensors = HashMap<String, Tensor>;

fn zeros(shape: &[usize], dtype: DType) -> Tensor {
    Tensor::zeros(shape, dtype, &Device::Cpu).unwrap()
}

fn refused(model: &Path, words: &[&str]) {
    let error = Model::open(model.to_str().unwrap()).err().expect("an error").to_string();
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

/// A copy of a golden checkpoint that `edit` has changed, and what must be said about it.
fn broken(name: &str, edit: impl FnOnce(&mut Tensors), words: &[&str]) {
    let copy = edited(name, |mut tensors| {
        edit(&mut tensors);
        tensors
    });
    refused(copy.path(), &[&["model.safetensors"], words].concat());
}

#[test]
fn a_missing_or_wrong_tensor_is_named() {
    broken("timm_vit", |t| drop(t.remove("blocks.1.mlp.fc2.bias")), &["`blocks.1.mlp.fc2.bias`", "shape [48]", "no such tensor"]);
    broken("timm_vit", |t| drop(t.remove("patch_embed.proj.weight")), &["`patch_embed.proj.weight`", "no such tensor"]);
    broken("timm_vit", |t| drop(t.insert("pos_embed".into(), zeros(&[17, 48], DType::F32))), &["pos_embed", "3 dimensions", "[17, 48]"]);
    broken("timm_vit", |t| drop(t.insert("norm.bias".into(), zeros(&[47], DType::F32))), &["norm.bias", "[48]", "[47]"]);
    broken(
        "timm_vit",
        |t| drop(t.insert("norm.bias".into(), zeros(&[48], DType::I64))),
        &["norm.bias", "floats of 16, 32 or 64 bits", "I64"],
    );
    broken("timm_vit", |t| t.retain(|key, _| !key.starts_with("blocks.2.")), &["blocks.2.norm1.weight", "3 blocks", "2 blocks"]);
    broken("timm_vit_avgpool_fcnorm", |t| drop(t.insert("head_dist.weight".into(), zeros(&[7, 48], DType::F32))), &["head_dist.weight"]);
}

#[test]
fn names_in_messages_are_those_of_the_file() {
    let name = "vit.encoder.layer.1.attention.attention.key.weight";
    broken("hf_vit", |t| drop(t.insert(name.into(), zeros(&[48, 47], DType::F32))), &[name, "[48, 48]", "[48, 47]"]);
    broken("hf_vit", |t| drop(t.insert("classifier.bias".into(), zeros(&[6], DType::F32))), &["`classifier.bias`", "[7]", "[6]"]);
    let beside = "a tensor beside `vit.encoder.layer.1.attention.attention.query.weight`";
    broken("hf_vit", |t| drop(t.remove(name)), &["blocks.1.attn.k.weight", beside, "no such tensor"]);
    broken("hf_vit", |t| drop(t.remove("vit.layernorm.bias")), &["`norm.bias`", "no such tensor in the file, nor another library's"]);
}

#[test]
fn tensors_that_change_nothing_are_noted_and_others_refused() {
    let copy = edited("hf_vit", |mut tensors| {
        tensors.insert("vit.pooler.dense.weight".into(), zeros(&[48, 48], DType::F32));
        tensors.insert("steps".into(), zeros(&[1], DType::I64));
        tensors
    });
    let notes = Model::open(copy.path().to_str().unwrap()).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("1 tensor(s) of the file are not used: pooler.dense.weight")), "{notes:?}");
    let name = "vit.encoder.layer.0.attention.gate";
    broken("hf_vit", |t| drop(t.insert(name.into(), zeros(&[48], DType::F32))), &[name, "does not know"]);
    broken("timm_vit", |t| drop(t.insert("norm_pre.weight".into(), zeros(&[48], DType::F32))), &["norm_pre.bias", "no such tensor"]);
    broken("timm_vit", |t| drop(t.insert("attn_pool.latent".into(), zeros(&[48], DType::F32))), &["attn_pool.latent", "does not know"]);
    broken("timm_vit", |t| drop(t.insert("model.norm.bias".into(), zeros(&[48], DType::F32))), &["one tensor for `norm.bias`"]);
}

#[test]
fn what_is_no_vision_transformer_is_told_what_it_is() {
    let llama = ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "model.norm.weight", "lm_head.weight"];
    let bert = ["bert.embeddings.word_embeddings.weight", "bert.encoder.layer.0.attention.self.query.weight"];
    let resnet = ["conv1.weight", "layer1.0.conv1.weight", "fc.weight"];
    for (names, words) in [
        (&llama[..], ["this is not a vision transformer, it has `", "language model"]),
        (&bert[..], ["this is not a vision transformer, it has `bert.embeddings.word", "word embedding"]),
        (&resnet[..], ["this is not a vision transformer, it has 3 tensors", "`layer1.0.conv1.weight`"]),
    ] {
        let all = |_| names.iter().map(|name| ((*name).to_string(), zeros(&[4, 4], DType::F32))).collect();
        let copy = edited("timm_vit", all);
        refused(copy.path(), &words);
    }
    broken("hf_vit", |t| t.retain(|key, _| !key.contains("classifier")), &["head.weight", "backbone", "name a classification checkpoint"]);
}

/// A safetensors file with this header and so many bytes of values.
fn file_with(header: &serde_json::Value, values: usize) -> Vec<u8> {
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; values]].concat()
}

#[test]
fn a_header_that_lies_is_refused() {
    let tensor = |from: usize, to: usize| json!({"dtype": "F32", "shape": [2, 3], "data_offsets": [from, to]});
    let refused = |header: serde_json::Value, values, words: &[&str]| {
        let error = Weights::from_bytes("lying.safetensors", file_with(&header, values)).unwrap_err().to_string();
        for word in [&["lying.safetensors"], words].concat() {
            assert!(error.contains(word), "`{word}` is not in: {error}");
        }
    };
    assert!(Weights::from_bytes("honest", file_with(&json!({"a": tensor(0, 24), "b": tensor(24, 48)}), 48)).is_ok());
    refused(json!({"a": tensor(0, 24), "b": tensor(12, 36)}), 48, &["`b`", "from byte 24 on", "bytes 12 to 36"]);
    refused(json!({"a": tensor(0, 20)}), 20, &["`a`", "F32 [2, 3]", "bytes 0 to 20"]);
    refused(json!({"a": tensor(0, 24)}), 23, &["not a complete safetensors file", "header describes"]);
    refused(json!({"a": tensor(0, 24)}), 25, &["not a complete safetensors file"]);
    refused(json!({"a": tensor(24, 0)}), 24, &["`a`", "bytes 24 to 0"]);
    refused(json!({"a": {"dtype": "F32", "shape": [u64::MAX, 2], "data_offsets": [0, 24]}}), 24, &["`a`"]);
    refused(json!({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}), 4, &["unreadable header", "F99"]);
    refused(json!([1, 2]), 0, &["unreadable header"]);
    for bytes in [&b"12345"[..], &[0xff; 64], b"<!DOCTYPE html><html>an error page</html>"] {
        let error = Weights::from_bytes("x", bytes.to_vec()).err().unwrap().to_string();
        assert!(error.contains("not a complete safetensors file"), "{error}");
    }
}

#[test]
fn a_header_whose_length_begins_as_a_pickle_is_none() {
    let file = tempfile::Builder::new().suffix(".safetensors").tempfile().unwrap();
    for length in [0x0280, 0x0380, 0x0480, 0x0580] {
        let header = format!("{:<length$}", json!({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).to_string());
        fs::write(file.path(), [&(length as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat()).unwrap();
        let weights = Weights::open("test", &[file.path()]).unwrap();
        assert_eq!(weights.keys().collect::<Vec<_>>(), ["x"], "{length}");
    }
}

#[test]
fn other_formats_are_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        fs::write(folder.path().join(name), bytes).unwrap();
        folder.path().join(name)
    };
    refused(&write("pytorch_model.bin", b"PK\x03\x04 and so on"), &["pytorch_model.bin", "pickled", "safetensors.torch.save_file"]);
    refused(&write("old.pth", b"\x80\x02\x8a\nl\xfc\x9c"), &["old.pth", "pickled", "can run code"]);
    refused(folder.path(), &["a pickle, which can run code", "safetensors.torch.save_file"]);
    refused(&write("empty.safetensors", b""), &["0 bytes"]);
    refused(&write("lfs.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), &["Git LFS pointer", "git lfs pull"]);
    refused(&write("model.gguf", b"GGUF and so on, and so on"), &["GGUF"]);
    refused(folder.path(), &["expected model.safetensors", "found 2 other safetensors files"]);
    refused(Path::new("no/such/folder"), &["no such file or folder"]);
}

/// `hf_vit` in two shards, with the list of them.
fn sharded() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let all = tensors(golden("hf_vit/model.safetensors"));
    let mut map = serde_json::Map::new();
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let (keys, values) = all.into_iter().partition::<Tensors, _>(|(key, _)| key.contains("query") || key.contains("layer.2"));
    for (shard, tensors) in shards.iter().zip([keys, values]) {
        map.extend(tensors.keys().map(|key| (key.clone(), json!(shard))));
        candle_core::safetensors::save(&tensors, folder.path().join(shard)).unwrap();
    }
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    fs::copy(golden("hf_vit/config.json"), folder.path().join("config.json")).unwrap();
    folder
}

#[test]
fn shards_are_read_as_one() {
    let folder = sharded();
    let expected = tensors(golden("hf_vit/expected.safetensors"));
    for path in [folder.path().to_path_buf(), folder.path().join("model.safetensors.index.json")] {
        let model = Model::open(path.to_str().unwrap()).unwrap();
        let logits = forward(model.network(), &expected["input"], &mut Identity).unwrap().classes().unwrap();
        assert!(difference(&logits, &expected["logits"]) < 1e-4);
    }
}

#[test]
fn shards_that_do_not_fit_are_refused() {
    let folder = sharded();
    let second = folder.path().join("model-00002-of-00002.safetensors");
    let index = folder.path().join("model.safetensors.index.json");
    let (whole, text) = (tensors(&second), fs::read_to_string(&index).unwrap());

    fs::write(&index, text.replace("model-00002-of", "../model-00002-of")).unwrap();
    refused(folder.path(), &["index.json", "`../model-00002-of-00002.safetensors` in the same folder"]);
    fs::write(&index, "{}").unwrap();
    refused(folder.path(), &["index.json", "not a list of shards"]);
    fs::write(&index, text).unwrap();

    let mut fewer = whole.clone();
    fewer.remove("classifier.bias");
    candle_core::safetensors::save(&fewer, &second).unwrap();
    refused(folder.path(), &["`classifier.bias`", "model-00002-of-00002.safetensors, as the index says"]);
    let mut more = whole;
    more.insert("vit.encoder.layer.0.attention.attention.query.bias".into(), zeros(&[48], DType::F32));
    candle_core::safetensors::save(&more, &second).unwrap();
    refused(folder.path(), &["00002-of-00002.safetensors", "query.bias", "another file of the checkpoint"]);
    fs::remove_file(&second).unwrap();
    refused(folder.path(), &["index.json", "model-00002-of-00002.safetensors", "download all shards"]);
}

#[test]
fn without_configuration_it_says_what_it_assumes_or_refuses() {
    let copy = edited("timm_vit", |tensors| tensors);
    fs::remove_file(copy.path().join("config.json")).unwrap();
    refused(copy.path(), &["number of heads is in no tensor", "width 48", "config.json"]);

    // The width of ViT-Ti, which tells the heads.
    let widen = |tensors: Tensors| -> Tensors {
        let wide = |shape: &[usize]| shape.iter().map(|side| if side % 48 == 0 { side * 4 } else { *side }).collect::<Vec<_>>();
        tensors.into_iter().map(|(key, tensor)| (key, Tensor::ones(wide(tensor.dims()), DType::F32, &Device::Cpu).unwrap())).collect()
    };
    let copy = edited("timm_vit", widen);
    fs::remove_file(copy.path().join("config.json")).unwrap();
    let model = Model::open(copy.path().join("model.safetensors").to_str().unwrap()).unwrap();
    let vit = model.config.vit().unwrap();
    assert_eq!((vit.heads, vit.image_size, vit.norm_eps), (3, (32, 32), 1e-6));
    for assumed in ["3 is a guess", "32x32 inferred from 17 positions", "norm epsilon is not in config.json: 1e-6, the default of timm"] {
        assert!(model.notes.iter().any(|note| note.contains(assumed)), "`{assumed}` is not in {:?}", model.notes);
    }
    let copy = edited("hf_vit", widen);
    fs::remove_file(copy.path().join("config.json")).unwrap();
    let model = Model::open(copy.path().to_str().unwrap()).unwrap();
    assert_eq!(model.config.vit().unwrap().norm_eps, 1e-12);

    let copy = edited("timm_swin", |tensors| tensors);
    fs::remove_file(copy.path().join("config.json")).unwrap();
    let model = Model::open(copy.path().to_str().unwrap()).unwrap();
    assert_eq!(model.config.image_size(), (16, 16), "4 tokens x 2 pixels x 2 for the merging");
    assert!(model.notes.iter().any(|note| note.contains("16x16 assumed")), "{:?}", model.notes);
}

#[test]
fn a_swin_that_does_not_fit_is_refused() {
    let table = "layers.0.blocks.0.attn.relative_position_bias_table";
    broken("timm_swin", |t| drop(t.insert(table.into(), zeros(&[48, 2], DType::F32))), &[table, "square window", "48 rows"]);
    broken("timm_swin", |t| drop(t.remove("layers.1.downsample.norm.bias")), &["layers.1.downsample.norm.bias", "no such tensor"]);
    broken("timm_swin", |t| t.retain(|key, _| !key.starts_with("layers.1.blocks.1")), &["[2,2] blocks", "[2,1] blocks"]);
    broken("timm_swin", |t| t.retain(|key, _| !key.starts_with("head")), &["head.fc.weight", "backbone"]);
    broken("timm_swin", |t| drop(t.insert("absolute_pos_embed".into(), zeros(&[1, 256, 24], DType::F32))), &["does not know"]);
}

/// Windows that do not fill a grid are padded as the library does; what no library computes, or each in its own way, is refused by name.
#[test]
fn sizes_of_a_swin_are_taken_or_refused_as_its_library_does() {
    let sized = |name: &str, from: &str, to: &str| {
        let copy = edited(name, |tensors| tensors);
        let path = copy.path().join("config.json");
        let config = fs::read_to_string(&path).unwrap().replace([' ', '\n'], "");
        assert!(config.contains(from), "{config}");
        fs::write(path, config.replace(from, to)).unwrap();
        copy
    };
    for (name, from, to, size) in [
        ("timm_swin", "\"img_size\":32", "\"img_size\":40", (40, 40)),
        ("hf_swin", "\"image_size\":32", "\"image_size\":[32,16]", (32, 16)),
        ("hf_swin", "\"image_size\":32", "\"image_size\":[31,45]", (31, 45)),
        ("torchvision_swin_padded", "[26,22]", "[2,94]", (2, 94)),
    ] {
        let copy = sized(name, from, to);
        assert_eq!(Model::open(copy.path().to_str().unwrap()).unwrap().config.image_size(), size, "{name}");
    }
    let larger = "windows of 4x4 tokens are larger than the grid of stage 1";
    let cut = "patches of 2x2 pixels do not fill an input of";
    for (name, from, to, problem, size) in [
        ("timm_swin", "\"img_size\":32", "\"img_size\":12", larger, "3x3, of an input of 12x12"),
        ("timm_swin", "\"img_size\":32", "\"img_size\":33", cut, "33x33"),
        ("hf_swin", "\"image_size\":32", "\"image_size\":[32,12]", larger, "3x8, of an input of 12x32"),
        ("torchvision_swin_padded", "[26,22]", "[25,22]", cut, "22x25"),
    ] {
        refused(sized(name, from, to).path(), &[problem, size]);
    }
    // A table of a window that is much larger than its grid is small, and its bias is not.
    let vast = edited("torchvision_swin_padded", |mut tensors| {
        for (_, tensor) in tensors.iter_mut().filter(|(key, _)| key.ends_with("relative_position_bias_table")) {
            *tensor = zeros(&[599 * 599, tensor.dims()[1]], DType::F32);
        }
        tensors
    });
    refused(vast.path(), &["GiB of memory", "--max-memory"]);
}

#[test]
fn random_checkpoints_are_those_of_timm_but_for_their_values() {
    for (name, timm) in [("vit_mini", "timm_vit"), ("deit_mini_distilled", "timm_deit_distilled"), ("swin_mini", "timm_swin")] {
        let make = |seed| {
            let folder = tempfile::tempdir().unwrap();
            make_checkpoint::make(name, folder.path(), seed).unwrap();
            folder
        };
        let folder = make(1);
        let shapes = |path: &Path| tensors(path).into_iter().map(|(key, t)| (key, t.dims().to_vec())).collect::<BTreeMap<_, _>>();
        let file = folder.path().join("model.safetensors");
        assert_eq!(shapes(&file), shapes(&golden(&format!("{timm}/model.safetensors"))), "{name}");
        assert_eq!(fs::read(&file).unwrap(), fs::read(make(1).path().join("model.safetensors")).unwrap(), "the same seed");
        assert_ne!(fs::read(&file).unwrap(), fs::read(make(2).path().join("model.safetensors")).unwrap(), "another seed");

        let ours = Model::open(folder.path().to_str().unwrap()).unwrap();
        let theirs = Model::open(golden(timm).to_str().unwrap()).unwrap();
        assert_eq!(ours.config, theirs.config);
        let preprocess = |model: &Model| {
            let (channels, size) = (model.config.in_chans(), model.config.image_size());
            igq::input::Preprocess::from_config(model.raw_config.as_ref(), None, channels, size).unwrap()
        };
        assert_eq!(preprocess(&ours), preprocess(&theirs));
        let input = &tensors(golden(&format!("{timm}/expected.safetensors")))["input"];
        let logits =
            forward(ours.network(), input, &mut Identity).unwrap().classes().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(logits.iter().all(|v| v.is_finite()) && logits.iter().any(|v| *v != 0.0));
    }
    let error = make_checkpoint::make("resnet", Path::new("nowhere"), 0).unwrap_err().to_string();
    assert!(error.contains("resnet") && error.contains("deit_tiny"), "{error}");
}
