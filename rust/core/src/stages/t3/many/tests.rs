#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::sync::{Arc, Mutex};

use super::*;
use crate::stages::t3::generate::{generate, run};
use crate::{Checkpoint, Config, Device, Precision, Silent, draws};

/// In a script: a row of −∞, a row with NaN.
const NOTHING: i64 = -1;
const NAN: i64 = -2;
const STOP: i64 = 6562;
/// More reports than there are.
const NEVER: usize = usize::MAX;

/// A decoder whose sessions make the tokens of `text_ids` certain, one after the other (and refuse none at all).
struct Scripts {
    config: config::T3,
    /// First tokens of the scripts that took each step together.
    steps: Mutex<Vec<Vec<i64>>>,
    broken: bool,
}

struct Script {
    _prefix: Arc<()>,
    tokens: Vec<i64>,
    fed: Vec<i64>,
}

impl Scripts {
    fn new() -> Self {
        Self { config: Config::builtin("turbo").unwrap().t3, steps: Mutex::default(), broken: false }
    }
}

impl Session for Script {
    fn prefill(&mut self, observer: &dyn Observer) -> Result<Vec<f32>> {
        observer.progress("t3.prefill", 1, 1)?;
        self.row()
    }

    fn step(&mut self, token: i64) -> Result<Vec<f32>> {
        self.fed.push(token);
        self.row()
    }
}

impl Script {
    fn row(&self) -> Result<Vec<f32>> {
        let mut row = vec![f32::NEG_INFINITY; 6563];
        match self.tokens.get(self.fed.len()).copied() {
            Some(NOTHING) => {}
            Some(NAN) => row[7] = f32::NAN,
            Some(token) => row[token as usize] = 1.0,
            None => return Err(Error::argument("step: the script is over")),
        }
        Ok(row)
    }
}

impl Decoder for Scripts {
    type Prefix = Arc<()>;
    type Session = Script;

    fn config(&self) -> &config::T3 {
        &self.config
    }

    fn start(&self, request: &Request<Arc<()>>) -> Result<Script> {
        if request.text_ids.is_empty() {
            return Err(Error::argument("text_ids: expected at least 1 id, got none"));
        }
        Ok(Script { _prefix: request.prefix.clone(), tokens: request.text_ids.clone(), fed: Vec::new() })
    }

    fn step_many(&self, sessions: &mut [&mut Script], tokens: &[i64]) -> Result<Vec<Vec<f32>>> {
        self.steps.lock().unwrap().push(sessions.iter().map(|session| session.tokens[0]).collect());
        if self.broken {
            return Err(Error::argument("the device is gone"));
        }
        sessions.iter_mut().zip(tokens).map(|(session, token)| session.step(*token)).collect()
    }
}

fn request(text_ids: &[i64], max_tokens: usize) -> Request<Arc<()>> {
    let parameters = SamplerParameters::default();
    Request { prefix: Arc::default(), text_ids: text_ids.to_vec(), parameters, seed: 5, max_tokens }
}

type Outcomes = Vec<(usize, std::result::Result<Vec<i64>, String>)>;

fn outcomes<D: Decoder<Prefix: Clone>>(decoder: &D, requests: &[Request<D::Prefix>], rows: usize) -> Outcomes {
    let mut all = Vec::new();
    generate_many(decoder, requests.to_vec(), rows, &Silent, |done| {
        assert!(done.seconds >= 0.0);
        all.push((done.index, done.tokens.map_err(|e| e.to_string())));
        Ok(())
    })
    .unwrap();
    all
}

/// Of lengths 1 to 5, ended by the stop token, by −∞ and by the limit.
fn scripts() -> Vec<Request<Arc<()>>> {
    vec![
        request(&[10, 1, 2, 3, STOP], 50),
        request(&[STOP, STOP], 50),
        request(&[20, 20, 20, 20, 20], 2),
        request(&[NOTHING], 50),
        request(&[30, NOTHING], 50),
        request(&[40], 0),
        request(&[50, 51, STOP], 50),
    ]
}

#[test]
fn scripts_end_as_they_do_alone_in_any_number_of_rows() {
    for rows in [1, 2, 3, 16] {
        let mut found = outcomes(&Scripts::new(), &scripts(), rows);
        found.sort_unstable_by_key(|(index, _)| *index);
        let decoder = Scripts::new();
        let alone = scripts().into_iter().map(|request| {
            let mut session = decoder.start(&request).unwrap();
            run(&mut session, &decoder.config, &request.parameters, |_| Ok(0.5), request.max_tokens, &Silent).unwrap()
        });
        assert_eq!(found, alone.map(Ok).enumerate().collect::<Outcomes>(), "{rows} rows");
    }
}

#[test]
fn the_next_text_takes_the_place_of_a_finished_one_at_once() {
    let decoder = Scripts::new();
    let found = outcomes(&decoder, &scripts(), 2);
    assert_eq!(found.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2, 3, 0, 4, 5, 6]);
    let steps = decoder.steps.into_inner().unwrap();
    assert_eq!(steps, [vec![10, STOP], vec![10, 20], vec![10, 20], vec![10, 30], vec![50], vec![50]]);
}

#[test]
fn a_request_joins_between_two_steps_and_leaves() {
    let decoder = Scripts::new();
    let mut batch = Batch::default();
    let admit = |batch: &mut Batch<Scripts>, index, tokens: &[i64]| {
        batch.admit(&decoder, index, request(tokens, 50), &Silent).unwrap().map(|done| (done.index, done.tokens.unwrap()))
    };
    assert!(batch.is_empty() && batch.step(&decoder).unwrap().is_empty());
    assert_eq!(admit(&mut batch, 7, &[10, 11, 12, 13, STOP]), None);
    assert!(batch.step(&decoder).unwrap().is_empty());
    assert_eq!(admit(&mut batch, 9, &[20, 21, 22, STOP]), None);
    assert_eq!(admit(&mut batch, 8, &[NOTHING]), Some((8, vec![])));
    assert!(batch.step(&decoder).unwrap().is_empty());
    assert_eq!((batch.len(), batch.sampled()), (2, 5));
    assert!(batch.leave(9) && !batch.leave(9));
    assert!(batch.step(&decoder).unwrap().is_empty());
    let done = batch.step(&decoder).unwrap();
    assert_eq!(done.into_iter().map(|done| (done.index, done.tokens.unwrap())).collect::<Vec<_>>(), [(7, vec![10, 11, 12, 13])]);
    assert!(batch.is_empty());
    drop(batch);
    assert_eq!(decoder.steps.into_inner().unwrap(), [vec![10], vec![10, 20], vec![10], vec![10]]);
}

#[test]
fn an_error_is_that_of_its_request_alone() {
    let mut requests = scripts();
    requests.insert(1, request(&[60, 61, NAN], 50));
    requests.insert(3, request(&[], 50));
    requests.insert(5, request(&[NAN], 50));
    requests.push(Request { parameters: SamplerParameters { top_p: -1.0, ..SamplerParameters::default() }, ..request(&[1], 50) });
    let expected = outcomes(&Scripts::new(), &scripts(), 1).into_iter().map(|(_, tokens)| tokens.unwrap());
    let mut expected: Vec<_> = expected.collect();
    expected.sort_unstable();
    for rows in [1, 2, 16] {
        let mut found = outcomes(&Scripts::new(), &requests, rows);
        found.sort_unstable_by_key(|(index, _)| *index);
        let errors: Vec<_> = found.iter().filter_map(|(index, tokens)| tokens.clone().err().map(|e| (*index, e))).collect();
        let starts =
            ["logits: expected finite", "text_ids: expected at least 1 id", "logits: expected finite", "top_p: expected"];
        assert_eq!(errors.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 3, 5, 10]);
        assert!(errors.iter().zip(starts).all(|((_, error), start)| error.starts_with(start)), "{errors:?}");
        let mut right: Vec<_> = found.into_iter().filter_map(|(_, tokens)| tokens.ok()).collect();
        right.sort_unstable();
        assert_eq!(right, expected);
    }
}

/// Keeps the reports, and stops the work at one of them.
struct Reports(RefCell<Vec<(&'static str, usize, usize)>>, usize);

impl Observer for Reports {
    fn progress(&self, stage: &'static str, done: usize, total: usize) -> Result<()> {
        self.0.borrow_mut().push((stage, done, total));
        if self.0.borrow().len() > self.1 { Err(Error::Cancelled) } else { Ok(()) }
    }
}

#[test]
fn every_step_is_reported_and_the_last_report_is_the_whole() {
    let reports = Reports(RefCell::default(), NEVER);
    generate_many(&Scripts::new(), scripts(), 3, &reports, |_| Ok(())).unwrap();
    let reports = reports.0.into_inner();
    assert_eq!(reports.iter().filter(|(stage, ..)| *stage == "t3.prefill").count(), 7);
    let t3: Vec<_> = reports.into_iter().filter(|(stage, ..)| *stage == "t3").collect();
    let total = 5 * 51 + 3 + 1;
    assert!(t3.windows(2).all(|pair| pair[0].1 < pair[1].1), "{t3:?}");
    assert_eq!((t3[0], t3[t3.len() - 1]), (("t3", 3, total), ("t3", total, total)));
}

#[test]
fn a_report_a_taker_and_a_broken_step_end_everything() {
    for at in [0, 2, 4] {
        let mut given = 0;
        let outcome = generate_many(&Scripts::new(), scripts(), 3, &Reports(RefCell::default(), at), |_| {
            given += 1;
            Ok(())
        });
        assert!(matches!(outcome, Err(Error::Cancelled)), "{at}");
        assert!(given < 7);
    }
    let mut given = 0;
    let outcome = generate_many(&Scripts::new(), scripts(), 3, &Silent, |_| {
        given += 1;
        Err(Error::Cancelled)
    });
    assert!(matches!(outcome, Err(Error::Cancelled)) && given == 1);
    let broken = Scripts { broken: true, ..Scripts::new() };
    let outcome = generate_many(&broken, scripts(), 3, &Silent, |_| Ok(()));
    assert_eq!(outcome.unwrap_err().to_string(), "the device is gone");
}

#[test]
fn no_requests_and_no_rows() {
    assert_eq!(outcomes(&Scripts::new(), &[], 3), []);
    let outcome = generate_many(&Scripts::new(), scripts(), 0, &Silent, |_| Ok(()));
    assert_eq!(outcome.unwrap_err().to_string(), "rows: expected at least 1, got 0");
}

/// The toy's decoder, and the size of its speaker embedding.
fn toy(precision: Precision) -> (T3Decoder, usize) {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/toy");
    let checkpoint = Checkpoint::open_directory(directory).unwrap();
    let size = checkpoint.config().voice_encoder.embedding_size;
    (T3Decoder::load(&checkpoint, &Device::Cpu, precision).unwrap(), size)
}

/// Requests that differ in everything, of two voices, and the tokens of each alone.
fn requests(decoder: &T3Decoder, embedding_size: usize) -> Vec<(Request<T3Prefix>, Vec<i64>)> {
    let parameters = [
        SamplerParameters::default(),
        SamplerParameters { temperature: 1.5, top_k: 0, top_p: 1.0, repetition_penalty: 1.0 },
        SamplerParameters { top_k: 1, ..SamplerParameters::default() },
    ];
    let numbers = |i: usize, n: usize| draws::uniforms(i as u64, "test", 0, n).unwrap();
    let voice = |i: usize| {
        let speaker: Vec<f32> = numbers(i, embedding_size).iter().map(|v| *v as f32 - 0.5).collect();
        (speaker, numbers(i, 40 * i).iter().map(|v| (v * 6561.0) as i64).collect::<Vec<_>>())
    };
    let voices = [voice(0), voice(1)];
    let prefixes = voices.each_ref().map(|(speaker, prompt)| decoder.prefix(speaker, prompt).unwrap());
    let requests = (0..7).map(|i| {
        let (prefix, seed, max_tokens) = (prefixes[i % 2].clone(), i as u64, 12 + 9 * (i % 4));
        let text_ids: Vec<i64> = numbers(i + 1, 3 + i).iter().map(|v| (v * 200.0) as i64).collect();
        let uniforms = |step| Ok(draws::uniforms(seed, draws::T3, step as u64, 1)?[0]);
        let ((speaker, prompt), parameters) = (&voices[i % 2], parameters[i % 3]);
        let alone = generate(decoder, speaker, prompt, &text_ids, &parameters, uniforms, max_tokens, &Silent).unwrap();
        (Request { prefix, text_ids, parameters, seed, max_tokens }, alone)
    });
    requests.collect()
}

#[test]
fn tokens_of_a_network_are_those_of_each_alone() {
    for precision in [Precision::F32, Precision::Int8, Precision::Int4] {
        let (decoder, size) = toy(precision);
        for rows in [1, 3, 16] {
            let (mut requests, alone): (Vec<_>, Vec<_>) = requests(&decoder, size).into_iter().unzip();
            assert!(alone.windows(2).all(|pair| pair[0] != pair[1]));
            requests.push(Request { text_ids: vec![1 << 40], ..requests[0].clone() });
            let mut found = outcomes(&decoder, &requests, rows);
            found.sort_unstable_by_key(|(index, _)| *index);
            let error = found.pop().unwrap().1.unwrap_err();
            assert!(error.starts_with("text_ids: expected ids from 0 to"), "{error}");
            assert_eq!(found, alone.into_iter().map(Ok).enumerate().collect::<Outcomes>(), "{precision:?}, {rows} rows");
        }
    }
}

#[test]
fn a_row_that_cannot_step_is_named() {
    let (decoder, size) = toy(Precision::F32);
    let (request, _) = &requests(&decoder, size)[0];
    let mut sessions: Vec<_> = (0..2).map(|_| Decoder::start(&decoder, request).unwrap()).collect();
    sessions[0].prefill(&Silent).unwrap();
    let mut sessions: Vec<_> = sessions.iter_mut().collect();
    let error = decoder.step_many(&mut sessions, &[5, 6]).unwrap_err().to_string();
    assert!(error.contains("row 1"), "{error}");
    assert!(decoder.step_many(&mut sessions, &[5]).is_err());
}

#[test]
fn a_prefix_goes_with_the_last_text_that_begins_with_it() {
    let prefixes: Vec<Arc<()>> = (0..10).map(|_| Arc::default()).collect();
    let requests = |prefixes: &[Arc<()>]| {
        prefixes.iter().map(|p| Request { prefix: p.clone(), ..request(&[4, 5, STOP], 9) }).collect::<Vec<_>>()
    };
    let weak: Vec<_> = prefixes.iter().map(Arc::downgrade).collect();
    let alive = || weak.iter().filter(|prefix| prefix.strong_count() > 0).count();
    let mut requests = [requests(&prefixes), requests(&prefixes[9..])].concat(); // the last one twice
    drop(prefixes);
    requests.rotate_right(1);
    let mut seen = vec![];
    generate_many(&Scripts::new(), requests, 1, &Silent, |_| {
        seen.push(alive());
        Ok(())
    })
    .unwrap();
    assert_eq!(seen, [10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
}
