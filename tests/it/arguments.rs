//! What is said of arguments that are wrong: options of llama.cpp, and bytes that are no text.

use crate::common::{fails, ok, program};

#[test]
fn llama_cpp_s_options_are_answered() {
    for (args, says) in [
        (&["convert", "a", "--outfile", "b"][..], "the output is the second argument"),
        (&["convert", "a", "b", "--outtype", "f16"], "--type f16"),
        (&["quantize", "a", "b", "Q4_K_M"], "--type Q4_K_M"),
        (&["merge", "a", "b", "--outtype", "f16"], "`ggufkit convert` has --type"),
        (&["merge", "--merge", "a", "b"], "`ggufkit merge IN OUT`"),
    ] {
        let (code, why) = fails(args);
        assert!(code == 2 && why.contains(says) && !why.contains("similar"), "{args:?}: {why}");
    }
    assert!(ok(&["convert", "--help"]).contains("Usage") && ok(&["--version"]).starts_with("ggufkit "));
}

#[test]
#[cfg(unix)]
fn arguments_may_be_any_bytes() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::process::CommandExt as _;
    let odd = OsStr::from_bytes(b"\xff");
    let dashed = OsStr::from_bytes(b"--\xff");
    let convert = OsStr::new("convert");
    for args in [
        &[odd][..],
        &[dashed],
        &[odd, convert],
        &[dashed, convert],
        &[convert, dashed],
        &[convert, odd, odd, odd],
    ] {
        let out = program().args(args).output().unwrap();
        let why = String::from_utf8_lossy(&out.stderr);
        assert!(
            out.status.code() == Some(2) && why.starts_with("error: "),
            "{args:?}: {:?} {why}",
            out.status
        );
    }
    let out = program().args([OsStr::new("run"), odd, OsStr::new("-ngl")]).output().unwrap();
    let why = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(2) && why.contains("there is no such choice"), "{why}");
    // The name of the program too.
    let out = program().arg0(odd).args(["merge", "--outtype"]).output().unwrap();
    let why = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(2) && why.contains("`ggufkit convert` has --type"), "{why}");
}
