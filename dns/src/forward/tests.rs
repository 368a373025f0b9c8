use hickory_proto::op::{Edns, ResponseCode};
use hickory_proto::rr::RecordType;

use super::*;
use crate::fixture::{Manner, Nameserver, ResolvConf, addresses, parsed, question};

fn query(name: &str) -> Message {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(question(name, RecordType::A));
    query
}

fn config(file: &ResolvConf, port: u16) -> Config {
    Config { resolv_conf: file.path(), port, ..Config::default() }
}

/// Nameservers with these manners, a file that names them in order, and a forwarder.
async fn with(manners: &[Manner]) -> (Vec<Nameserver>, ResolvConf, Forwarder) {
    let servers = Nameserver::start(manners).await;
    let lines: String = servers.iter().map(|server| format!("nameserver {}\n", server.address.ip())).collect();
    let file = ResolvConf::new(&lines);
    let config = Config { attempt: Duration::from_millis(300), ..config(&file, servers[0].address.port()) };
    (servers, file, Forwarder::new(config))
}

/// Who answered: the nameservers of the tests give their own address for every name.
async fn answered_by(forwarder: &Forwarder) -> String {
    match forwarder.ask(&query("example.com")).await {
        Ok(answer) => addresses(&answer.answers).first().map_or_else(|| "nobody".to_owned(), IpAddr::to_string),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn the_first_nameserver_that_can_answer_does() {
    let (servers, _file, forwarder) = with(&[Manner::Good, Manner::Good]).await;
    assert_eq!(answered_by(&forwarder).await, "127.0.0.1");
    assert_eq!((servers[0].asked(), servers[1].asked()), (1, 0));
}

#[tokio::test]
async fn a_silent_a_failing_and_an_absent_nameserver_are_passed_over() {
    let (mut servers, file, forwarder) = with(&[Manner::Silent, Manner::Failing, Manner::Good, Manner::Good]).await;
    assert_eq!(answered_by(&forwarder).await, "127.0.0.3");
    file.write("nameserver 127.0.0.4\nnameserver 127.0.0.3\n");
    servers.pop();
    assert_eq!(answered_by(&forwarder).await, "127.0.0.3");
}

#[tokio::test]
async fn an_excuse_is_passed_on_if_nobody_knows_better() {
    let (servers, _file, forwarder) = with(&[Manner::Failing, Manner::Failing]).await;
    let answer = forwarder.ask(&query("example.com")).await.expect("an answer, if a bad one");
    assert_eq!(answer.response_code, ResponseCode::ServFail);
    assert_eq!((servers[0].asked(), servers[1].asked()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn silence_ends_in_time() {
    let servers = Nameserver::start(&[Manner::Silent, Manner::Silent]).await;
    let file = ResolvConf::new("nameserver 127.0.0.1\nnameserver 127.0.0.2\n");
    let forwarder = Forwarder::new(config(&file, servers[0].address.port()));
    let start = Instant::now();
    let error = forwarder.ask(&query("example.com")).await.expect_err("nobody answers");
    assert!(matches!(error, ForwardError::NoAnswer { .. }), "{error}");
    let total = Config::default().total;
    assert!((total..total + Duration::from_millis(100)).contains(&start.elapsed()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn nameservers_that_are_not_there_are_not_waited_for() {
    let (servers, _file, forwarder) = with(&[Manner::Good, Manner::Good]).await;
    drop(servers);
    let start = Instant::now();
    assert!(answered_by(&forwarder).await.starts_with("no nameserver answered"));
    assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_truncated_answer_is_fetched_whole_by_tcp() {
    let (_servers, _file, forwarder) = with(&[Manner::Truncating(200)]).await;
    let answer = forwarder.ask(&query("example.com")).await.expect("it is answered");
    assert!(!answer.truncation);
    assert_eq!(answer.answers.len(), 200);
}

#[tokio::test(start_paused = true)]
async fn what_can_t_be_fetched_whole_is_passed_on_with_its_mark() {
    for manner in [Manner::Cutting, Manner::CuttingAndHanging] {
        let (_servers, _file, forwarder) = with(&[manner]).await;
        let start = Instant::now();
        let answer = forwarder.ask(&query("example.com")).await.expect("it is answered");
        assert!(answer.truncation && answer.answers.len() == 1, "{manner:?}: {answer}");
        assert!(start.elapsed() < Duration::from_millis(2_500), "{manner:?}: {:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_late_answer_is_taken_and_asked_for_once() {
    let (servers, _file, forwarder) = with(&[Manner::Slow(500)]).await;
    assert_eq!(answered_by(&forwarder).await, "127.0.0.1");
    assert_eq!(servers[0].asked(), 1);
}

#[tokio::test]
async fn the_first_answer_counts_of_all_that_were_asked() {
    let (servers, _file, forwarder) = with(&[Manner::Slow(500), Manner::Silent]).await;
    assert_eq!(answered_by(&forwarder).await, "127.0.0.1");
    assert_eq!((servers[0].asked(), servers[1].asked()), (1, 1));
}

#[tokio::test]
async fn no_of_a_later_nameserver_waits_for_the_earlier_ones() {
    let (servers, _file, forwarder) = with(&[Manner::Slow(500), Manner::Ignorant]).await;
    assert_eq!(answered_by(&forwarder).await, "127.0.0.1", "the first may know names that the world does not know");
    assert_eq!((servers[0].asked(), servers[1].asked()), (1, 1));
    let (_servers, file, _) = with(&[Manner::Silent, Manner::Ignorant]).await;
    let patience = Duration::from_millis(600);
    let attempt = Duration::from_millis(100);
    let forwarder = Forwarder::new(Config { patience, attempt, ..config(&file, _servers[0].address.port()) });
    let start = Instant::now();
    let answer = forwarder.ask(&query("example.com")).await.expect("it is answered");
    assert_eq!(answer.response_code, ResponseCode::NXDomain);
    assert!(start.elapsed() >= patience, "{:?}", start.elapsed());
}

#[tokio::test]
async fn no_of_the_first_nameserver_counts_at_once() {
    let (servers, _file, forwarder) = with(&[Manner::Ignorant, Manner::Good]).await;
    let answer = forwarder.ask(&query("example.com")).await.expect("it is answered");
    assert_eq!((answer.response_code, servers[1].asked()), (ResponseCode::NXDomain, 0));
}

#[tokio::test]
async fn a_nameserver_that_neither_knows_nor_asks_is_passed_over() {
    let (_servers, _file, forwarder) = with(&[Manner::Lame, Manner::Good]).await;
    assert_eq!(answered_by(&forwarder).await, "127.0.0.2");
}

#[tokio::test]
async fn an_answer_that_is_cut_within_a_record_is_fetched_whole() {
    let (_servers, _file, forwarder) = with(&[Manner::CutWithinRecord]).await;
    assert_eq!(answered_by(&forwarder).await, "127.0.0.1");
}

#[tokio::test]
async fn a_lost_question_is_repeated_as_it_was() {
    let (servers, file, _) = with(&[Manner::Losing]).await;
    let resend = Duration::from_millis(100);
    let forwarder = Forwarder::new(Config { resend, ..config(&file, servers[0].address.port()) });
    assert_eq!(answered_by(&forwarder).await, "127.0.0.1");
    let questions = servers[0].questions();
    assert!(questions.len() == 2 && questions[0] == questions[1], "an answer to either counts: {questions:?}");
}

#[tokio::test]
async fn names_have_no_case() {
    let (_servers, _file, forwarder) = with(&[Manner::LowerCase]).await;
    let answer = forwarder.ask(&query("WWW.Example.COM")).await.expect("it is answered");
    assert_eq!(answer.answers.len(), 1);
}

#[tokio::test]
async fn a_nameserver_without_edns_is_asked_without_it() {
    let (servers, _file, forwarder) = with(&[Manner::WithoutEdns]).await;
    let mut query = query("example.com");
    query.set_edns(Edns::new());
    assert_eq!(forwarder.ask(&query).await.expect("it is answered").answers.len(), 1);
    assert_eq!(servers[0].asked(), 2);
}

#[tokio::test]
async fn who_refuses_need_not_repeat_the_question() {
    let (_servers, _file, forwarder) = with(&[Manner::Curt, Manner::Good]).await;
    let start = Instant::now();
    assert_eq!(answered_by(&forwarder).await, "127.0.0.2");
    assert!(start.elapsed() < Duration::from_millis(300), "the next is asked at once: {:?}", start.elapsed());
}

#[tokio::test]
async fn tcp_alone_is_used_where_the_file_says_so() {
    let (servers, file, forwarder) = with(&[Manner::TcpOnly]).await;
    file.write("nameserver 127.0.0.1\noptions use-vc\n");
    assert_eq!(answered_by(&forwarder).await, "127.0.0.1");
    assert_eq!(servers[0].asked(), 0);
}

#[tokio::test]
async fn only_the_answer_to_the_question_counts() {
    let (_servers, _file, forwarder) = with(&[Manner::Noisy]).await;
    assert_eq!(answered_by(&forwarder).await, "127.0.0.1");
}

#[tokio::test]
async fn the_file_is_followed_however_it_changes() {
    let (_servers, file, forwarder) = with(&[Manner::Good, Manner::Good, Manner::Good]).await;
    assert_eq!(answered_by(&forwarder).await, "127.0.0.1");
    // Same length, and as like as not the same time stamp.
    file.write("nameserver 127.0.0.2\n");
    assert_eq!(answered_by(&forwarder).await, "127.0.0.2");
    file.link_to("nameserver 127.0.0.3\n");
    assert_eq!(answered_by(&forwarder).await, "127.0.0.3");
    // The one on the host itself is the C library's last resort.
    file.remove();
    assert_eq!(answered_by(&forwarder).await, "127.0.0.1");
    file.link_to("nameserver 127.0.0.3\n");
    file.remove_target();
    assert_eq!(answered_by(&forwarder).await, "127.0.0.1");
    file.remove();
    file.write("nameserver 127.0.0.2\n");
    assert_eq!(answered_by(&forwarder).await, "127.0.0.2");
    file.write("search example.com\n");
    assert_eq!(answered_by(&forwarder).await, "127.0.0.1");
    file.remove();
    std::fs::create_dir(file.path()).expect("the directory is ours");
    let error = forwarder.ask(&query("example.com")).await.expect_err("that is no file");
    assert!(matches!(error, ForwardError::Unreadable { .. }), "{error}");
}

#[tokio::test]
async fn we_never_ask_ourselves() {
    let servers = Nameserver::start(&[Manner::Good, Manner::Good]).await;
    let file = ResolvConf::new("nameserver 169.254.53.53\nnameserver 0.0.0.0\nnameserver ::ffff:127.0.0.1\n");
    let mut config = config(&file, servers[0].address.port());
    config.never.insert(parsed("127.0.0.1"));
    let forwarder = Forwarder::new(config);
    assert!(matches!(forwarder.nameservers(), Err(ForwardError::NoNameserver { .. })));
    assert!(matches!(forwarder.ask(&query("a.b")).await, Err(ForwardError::NoNameserver { .. })));
    file.write("nameserver 169.254.53.53\nnameserver 127.0.0.1\nnameserver 127.0.0.2\n");
    assert_eq!(answered_by(&forwarder).await, "127.0.0.2");
    assert_eq!((servers[0].asked(), servers[1].asked()), (0, 1));
}

#[test]
fn as_many_are_asked_as_the_c_library_asks() {
    let file = ResolvConf::new("nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n");
    let servers = Forwarder::new(config(&file, 53)).nameservers().expect("there are some");
    assert_eq!(servers, [parsed("10.0.0.1:53"), parsed("10.0.0.2:53"), parsed("10.0.0.3:53")]);
}
