use super::*;

#[test]
fn losses_go_through_the_probes() {
    let probe = |dtype, error, kld| Probe { dtype, error, kld };
    let m = Matrix {
        name: "m".into(),
        shape: vec![1, 256],
        probes: vec![probe(DType::Q4_K, 0.01, 0.1), probe(DType::Q2_K, 0.1, 2.0)],
        errors: vec![
            (DType::Q8_0, 0.001),
            (DType::Q4_K, 0.01),
            (DType::Q3_K, 0.1f64.powf(1.5)),
            (DType::Q2_K, 0.1),
            (DType::IQ1_S, 0.4),
            (DType::F32, 0.0),
        ],
    };
    let is = |t, x: f64| {
        let loss = m.loss(t).unwrap();
        assert!((loss - x).abs() <= 1e-12 * x, "{loss} {x}");
    };
    is(DType::Q8_0, 0.01);
    is(DType::Q4_K, 0.1);
    is(DType::Q3_K, 0.2f64.sqrt());
    is(DType::Q2_K, 2.0);
    is(DType::IQ1_S, 8.0);
    is(DType::F32, 0.0);
    assert_eq!(m.loss(DType::Q5_0), None);
    assert!((m.coefficient() - 10.0).abs() < 1e-12);
}

#[test]
fn what_says_nothing_costs_nothing_and_what_is_unknown_is_unknown() {
    let probe = |error, kld| Probe { dtype: DType::Q4_K, error, kld };
    let of = |probes| Matrix {
        name: "m".into(),
        shape: vec![1, 256],
        probes,
        errors: vec![(DType::Q4_K, 0.01), (DType::Q2_K, 0.1)],
    };
    assert_eq!(of(vec![probe(0.01, 0.0)]).loss(DType::Q2_K), Some(0.0));
    assert_eq!(of(vec![probe(0.0, 0.0)]).loss(DType::Q2_K), None);
    let known = Sensitivity { matrices: vec![of(vec![probe(0.01, 0.5)])], ..Sensitivity::default() };
    assert_eq!(known.predict([("m", DType::Q4_K), ("norm", DType::F32)]), Some(0.5));
    assert_eq!(known.predict([("m", DType::MXFP4)]), None);
    assert_eq!(parse(&print(&known)).unwrap(), known);
}

#[test]
fn lists_that_no_measurement_gives_are_refused() {
    let of = Matrix {
        name: "m".into(),
        shape: vec![1, 256],
        probes: vec![Probe { dtype: DType::Q4_K, error: 0.01, kld: 0.5 }],
        errors: vec![(DType::Q4_K, 0.01)],
    };
    let text = print(&Sensitivity { matrices: vec![of], ..Sensitivity::default() });
    assert!(parse(&text).is_ok());
    let many: String = (0..300).map(|i| format!("\"{i}\": 0, ")).collect();
    for key in ["\"errors\": {", "\"cache\": {"] {
        assert!(text.contains(key));
        let empty = text.replace("\"cache\": {}", "\"cache\": {\"f16\": 0}");
        let why = parse(&empty.replace(key, &format!("{key}{many}"))).unwrap_err();
        assert!(why.contains("more than 256 types"), "{why}");
    }
}
