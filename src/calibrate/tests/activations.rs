use super::*;
use crate::calibrate::Scratch;
use crate::calibrate::activations::{Activations, LayerWeights};
use crate::runner::layerwise::Tap;
use crate::runner::{KvType, Network, Options, Run, State, forward};

const EXACT: Options = Options { exact: true, isa: None };

fn scratch(memory: u64) -> (tempfile::TempDir, Scratch) {
    let folder = tempfile::tempdir().unwrap();
    let scratch = Scratch { memory, folder: folder.path().to_path_buf() };
    (folder, scratch)
}

/// Takes a text through all layers; the inputs of every tap, and the vectors behind the last layer, of each model.
fn through(
    network: &Network,
    tokens: &[Vec<u32>],
    models: usize,
    scratch: &Scratch,
) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let mut activations = Activations::new(network, tokens, models, scratch).unwrap();
    let mut taps = Vec::new();
    for layer in 0..network.depth() {
        let mut weights = LayerWeights::default();
        for tap in Tap::ALL {
            let mut all = vec![Vec::new(); models];
            let mut seen = 0;
            let known = vec![&weights; models];
            activations
                .visit_inputs(layer, tap, &known, &mut |inputs| {
                    assert_eq!(inputs.first, seen);
                    seen += inputs.count;
                    all.iter_mut().zip(inputs.by_model).for_each(|(all, x)| all.extend(x));
                    Ok(())
                })
                .unwrap();
            assert_eq!(seen, tokens.len());
            taps.extend(all);
            weights[tap as usize] = activations.original_weights(layer, tap).unwrap();
        }
        activations.finish_layer(&vec![&weights; models]).unwrap();
    }
    (taps, (0..models).map(|m| hidden(&activations, m)).collect())
}

fn hidden(activations: &Activations, model: usize) -> Vec<f32> {
    let mut bytes = Vec::new();
    let write = |part: &[u8]| {
        bytes.extend_from_slice(part);
        Ok(())
    };
    activations.save(model, write).unwrap().unwrap();
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// The logits behind vectors of the last layer.
fn logits(network: &Network, source: &Source, x: &[f32]) -> Vec<f32> {
    let find = |name: &str| source.model.tensors.iter().position(|t| t.name == name);
    let output = find("output.weight").or(find("token_embd.weight")).unwrap();
    let t = &source.model.tensors[output];
    let mut w = vec![0f32; t.elements() as usize];
    source.fetch(output, 0..t.elements()).unwrap().decode(&t.name, source.model.order, &mut w).unwrap();
    let cols = t.cols() as usize;
    let input = network.output_input(x);
    let dot = |x: &[f32], w: &[f32]| {
        x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>() as f32
    };
    input.chunks(cols).flat_map(|x| w.chunks(cols).map(move |w| dot(x, w))).collect()
}

fn same_as_forward(source: &Source, tokens: &[Vec<u32>]) {
    let network = Network::new(source, EXACT).unwrap();
    let mut wanted = Vec::new();
    for chunk in tokens {
        let mut state = State::new(&network, KvType::F32, 1, chunk.len()).unwrap();
        let all: Vec<usize> = (0..chunk.len()).collect();
        wanted.extend(forward(&network, &mut state, &[Run { sequence: 0, tokens: chunk }], &all).unwrap());
    }
    let (_folder, large) = scratch(1 << 30);
    let (folder, none) = scratch(0);
    let (taps, last) = through(&network, tokens, 2, &large);
    let found = logits(&network, source, &last[0]);
    let far = distance(&found, &wanted);
    assert!(far < 1e-4, "{}: {far}", source.path.display());
    // Two models with the same weights are one, and the disk is a memory.
    assert!(last[0] == last[1] && taps.chunks(2).all(|s| s[0] == s[1]));
    let (spilled, behind) = through(&network, tokens, 2, &none);
    assert!(spilled == taps && behind == last);
    let (alone, behind) = through(&network, tokens, 1, &large);
    assert!(behind[0] == last[0] && alone.iter().eq(taps.iter().step_by(2)));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_way_through_the_layers_is_that_of_the_runner() {
    let model = demo("model");
    same_as_forward(&model, &chunks(3, 20, 1024, 1));
    same_as_forward(&model, &chunks(1, 1, 1024, 2));
    // Chunks that go together only in part.
    same_as_forward(&demo("tiny.bin"), &chunks(21, 120, 512, 3));
}

#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn the_way_through_published_checkpoints_is_that_of_the_runner() {
    for source in published() {
        let vocab = source.model.tensors.iter().find(|t| t.name == "token_embd.weight").unwrap().rows();
        same_as_forward(&source, &chunks(2, 24, vocab as usize, 4));
    }
}

#[test]
fn vectors_go_out_and_come_back() {
    let source = demo("model");
    let network = Network::new(&source, EXACT).unwrap();
    let tokens = chunks(5, 700, 1024, 6);
    for memory in [0, 1 << 30] {
        let (_folder, scratch) = scratch(memory);
        let activations = Activations::new(&network, &tokens, 2, &scratch).unwrap();
        let x = hidden(&activations, 1);
        assert_eq!(x, network.embed(&tokens.concat()));
        let mut other = Activations::new(&network, &chunks(5, 700, 1024, 7), 2, &scratch).unwrap();
        let before = hidden(&other, 0);
        let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut rest = &bytes[..];
        other
            .restore(1, |out| {
                let (now, after) = rest.split_at(out.len());
                out.copy_from_slice(now);
                rest = after;
                Ok(())
            })
            .unwrap();
        assert!(rest.is_empty() && hidden(&other, 1) == x && hidden(&other, 0) == before);
    }
}

/// What is changed in one model is not in the other.
#[test]
fn each_model_has_its_own_way() {
    let source = demo("tiny.bin");
    let network = Network::new(&source, EXACT).unwrap();
    let tokens = chunks(3, 40, 512, 8);
    let (_folder, scratch) = scratch(1 << 30);
    let truth = through(&network, &tokens, 1, &scratch).1.remove(0);
    let mut activations = Activations::new(&network, &tokens, 2, &scratch).unwrap();
    for layer in 0..network.depth() {
        let (mut original, mut made) = (LayerWeights::default(), LayerWeights::default());
        for tap in Tap::ALL {
            activations
                .visit_inputs(layer, tap, &[&original, &made], &mut |inputs| {
                    let same = inputs.by_model[0] == inputs.by_model[1];
                    assert_eq!(same, layer == 0 && tap == Tap::Attention, "{layer} {tap:?}");
                    Ok(())
                })
                .unwrap();
            original[tap as usize] = activations.original_weights(layer, tap).unwrap();
            made[tap as usize] = original[tap as usize].clone();
            made[tap as usize].iter_mut().flat_map(|m| &mut m.weights).for_each(|w| *w *= 1.01);
        }
        activations.finish_layer(&[&original, &made]).unwrap();
    }
    assert_eq!(hidden(&activations, 0), truth);
    let far = distance(&hidden(&activations, 1), &truth);
    assert!(far > 1e-4 && far < 0.2, "{far}");
}

#[test]
fn tokens_that_are_not_there_are_said() {
    let source = demo("tiny.bin");
    let network = Network::new(&source, EXACT).unwrap();
    let (_folder, scratch) = scratch(1 << 30);
    let error =
        Activations::new(&network, &[vec![1, 511], vec![512, 1]], 1, &scratch).err().unwrap().to_string();
    assert!(error.contains("token 512") && error.contains("the vocabulary has 512 tokens"), "{error}");
}
