//! How pre-tokenizers cut texts.

use crate::Error;
use crate::pre::Splitter;

fn words<'t>(name: &str, text: &'t str) -> Vec<&'t str> {
    let mut words = Vec::new();
    Splitter::named(name).unwrap().split(text, &mut |word| words.push(word));
    words
}

#[test]
fn whitespace_but_for_the_last_is_a_word() {
    assert_eq!(words("gpt-2", "a  b \n c  "), ["a", " ", " b", " \n", " c", "  "]);
    assert_eq!(words("gpt-2", "a\n\nb"), ["a", "\n", "\n", "b"]);
    assert_eq!(words("llama-bpe", "a\n\nb"), ["a", "\n\n", "b"]);
    assert_eq!(words("llama-bpe", "a  \n  \n  b!\n\n c"), ["a", "  \n  \n", " ", " b", "!\n\n", " c"]);
    assert_eq!(words("llama-bpe", "\u{3000}\u{3000}1"), ["\u{3000}", "\u{3000}", "1"]);
    // A pattern before has cut the text: what follows is out of sight.
    assert_eq!(words("starcoder", "a  1"), ["a", "  ", "1"]);
    assert_eq!(words("gpt-2", ""), [""; 0]);
}

#[test]
fn numbers_and_contractions() {
    assert_eq!(words("gpt-2", "we'll WE'LL 12345"), ["we", "'ll", " WE", "'", "LL", " 12345"]);
    assert_eq!(words("llama-bpe", "WE'LL 12345"), ["WE", "'LL", " ", "123", "45"]);
    assert_eq!(words("qwen2", "a12"), ["a", "1", "2"]);
    // The letter that folds to s is none.
    assert_eq!(words("qwen2", "a'ſb"), ["a", "'ſb"]);
    assert_eq!(words("tiny_aya", "x1234567"), ["x", "1", "234", "567"]);
    assert_eq!(words("tiny_aya", "a \u{a0}12"), ["a", " ", "\u{a0}", "12"]);
    assert_eq!(words("default", "ab+12345"), ["ab", "+", "123", "45"]);
    assert_eq!(words("falcon", "`a` 1234"), ["`", "a", "`", " ", "123", "4"]);
}

#[test]
fn other_names() {
    assert_eq!(words("gpt-4o", "HelloWorld DON'T x/\ny"), ["Hello", "World", " DON'T", " x", "/\n", "y"]);
    assert_eq!(words("tekken", "aB12"), ["a", "B", "1", "2"]);
    assert_eq!(words("deepseek-llm", "ab 漢字 x\n"), ["ab", " ", "漢字", " x", "\n"]);
    assert_eq!(words("deepseek-coder", "ab.cd 12"), ["ab", ".", "cd", " ", "1", "2"]);
    assert_eq!(words("qwen35", "a\u{301}b"), ["a\u{301}b"]);
    assert_eq!(words("qwen2", "a\u{301}b"), ["a", "\u{301}b"]);
    assert_eq!(words("bloom", "a, b"), ["a", ",", " b"]);
    assert_eq!(words("laguna", "a\n\n b"), ["a", "\n\n", " b"]);
    let spaces = |n: usize| " ".repeat(n);
    assert_eq!(words("jais-2", &format!("{}a", spaces(7))), [&*spaces(4), "  ", " a"]);
    assert_eq!(words("jais-2", &spaces(8)), [&*spaces(8)]);
    assert_eq!(words("jais-2", " 1"), [" ", "1"]);
}

#[test]
fn names_that_are_not_known_are_told() {
    let Some(Error::UnknownPreTokenizer { what, hint }) = Splitter::named("llama-4o").err() else { panic!() };
    assert_eq!(what, "pre-tokenizer \"llama-4o\" is not supported");
    assert!(hint.contains(" llama-bpe, ") && hint.contains(" starcoder, "), "{hint}");
    // Every name that it gives can be had.
    for name in hint.rsplit("one of ").next().unwrap().split(", ") {
        Splitter::named(name).unwrap();
    }
}
