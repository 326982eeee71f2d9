/// Why a packet was dropped.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The host, or something behind it, sent to an endpoint.
    HostToEndpoint = 1,
    /// An endpoint sent to an address of the host.
    EndpointToHost = 2,
    /// Source or destination lies outside an internal network.
    OutsideInternal = 3,
    /// An endpoint sent from an address that is not its own.
    SpoofedSource = 4,
    /// An ARP or neighbour-discovery claim to an address that is not the endpoint's own.
    SpoofedNeighbour = 5,
    /// From an endpoint of another network on the same parent.
    OtherNetwork = 6,
    /// From a device on the parent that none of our programs passed.
    Unattached = 7,
    /// Neither IPv4, IPv6 nor ARP.
    UnknownProtocol = 8,
    /// Headers that are cut short or contradict each other.
    Malformed = 9,
    /// An endpoint's own packet that came back from the wire.
    Reflected = 10,
    /// To an address that its receiver was not given; a container can add one to its interface.
    Misaddressed = 11,
}

impl Reason {
    pub const ALL: [Self; 11] = [
        Self::HostToEndpoint,
        Self::EndpointToHost,
        Self::OutsideInternal,
        Self::SpoofedSource,
        Self::SpoofedNeighbour,
        Self::OtherNetwork,
        Self::Unattached,
        Self::UnknownProtocol,
        Self::Malformed,
        Self::Reflected,
        Self::Misaddressed,
    ];

    /// The name that `stats`, `trace` and the metrics print.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HostToEndpoint => "host-to-endpoint",
            Self::EndpointToHost => "endpoint-to-host",
            Self::OutsideInternal => "outside-internal",
            Self::SpoofedSource => "spoofed-source",
            Self::SpoofedNeighbour => "spoofed-neighbour",
            Self::OtherNetwork => "other-network",
            Self::Unattached => "unattached",
            Self::UnknownProtocol => "unknown-protocol",
            Self::Malformed => "malformed",
            Self::Reflected => "reflected",
            Self::Misaddressed => "misaddressed",
        }
    }

    /// The reason with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// The reason with this number, as a map key carries it.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|reason| *reason as u32 == number)
    }
}
