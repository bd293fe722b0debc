//! A netra that reads the orders' protocol, too: `NETRA_PROTOCOLS=7070=orders netra-orders --service-name shop`.

mod orders;

use netra::codecs::{codec::Framed, private::Private, tap::Protocol};
use std::process::ExitCode;

/// The protocol, as the settings know it by its name.
fn orders() -> Protocol {
    // Once, and for as long as the process lives.
    Protocol::Private(Box::leak(Box::new(Private::coded::<Framed<orders::Orders>>())))
}

fn main() -> ExitCode {
    netra::run(vec![orders()])
}
