//! Where copies of messages go.

use super::Compiler;
use crate::{
    key::Protocol,
    spec::{DestinationSpec, MirrorSpec, RouterSpec},
    table::{Mirror, Where},
};

impl Compiler<'_> {
    /// Where copies of a route's messages go; what is wrong with it is noted.
    pub(super) fn mirror(
        &mut self,
        spec: &MirrorSpec,
        router: &RouterSpec,
        candidates: &[Protocol],
    ) -> Option<Mirror> {
        if candidates.iter().all(|it| self.context.pinned.contains(it)) {
            let names: Vec<_> = candidates.iter().map(|protocol| protocol.name()).collect();
            let what = format!(
                "mirror: connections of {} are sessions, of which no message means anything \
                 elsewhere. Take it out",
                names.join(", ")
            );
            self.troubles.error(spec.to.place.clone(), what);
            return None;
        }
        let to = self.destination(&spec.to, router, candidates, false)?;
        self.complain_of_echo(&to, &spec.to);
        Some(Mirror { to, parts: spec.parts })
    }

    /// A copy that goes where the message goes is no copy, but a message that comes twice.
    fn complain_of_echo(&mut self, to: &Where, spec: &DestinationSpec) {
        let is_echo = match to {
            Where::One(cluster) => self.clusters.only_passes(*cluster),
            Where::ByPort(all) => {
                all.iter().any(|(_, cluster)| self.clusters.only_passes(*cluster))
            }
        };
        if is_echo {
            let what = format!(
                "mirror: {:?} has no endpoints of a ServiceEntry, so that copies would go where the \
                 messages went. Name another host, or a subset",
                spec.host
            );
            self.troubles.error(spec.place.clone(), what);
        }
    }
}
