//! Whether a network that exists is the one that a request asks for.

use super::options::{self, DriverOptions};
use super::pools::{self, Needs};
use super::{CreateRequest, Invalid, Mode, Network, Parent};

impl CreateRequest {
    /// Refuses a network that does not carry the labels of this request: someone else made it.
    pub fn check_owned(&self, network: &Network) -> Result<(), Invalid> {
        if options::labels(&self.labels)? == network.labels {
            return Ok(());
        }
        Err(Invalid::new(
            "name",
            &network.name,
            "a network of that name exists and was not made by this runtime; take another name",
        ))
    }

    /// Refuses a network that this request would not have made, naming the first field that
    /// differs. What the request leaves open (parent, subnets) may be anything.
    pub fn check_same(&self, network: &Network) -> Result<(), Invalid> {
        let families = options::families(self.ipv4, self.ipv6)?;
        let wanted = DriverOptions::parse(&self.options, self.mtu.as_deref(), families)?;
        let differs = |field: &str, wanted: &dyn ToString, found: &dyn ToString| {
            Err(Invalid::new(
                field,
                wanted.to_string(),
                format!(
                    "network {} exists with {}; disconnect its endpoints and remove it first",
                    network.name,
                    found.to_string()
                ),
            ))
        };
        let parent = network.parent.name();
        if let Some(name) = &wanted.parent
            && name != parent
        {
            return differs(&options::field(options::PARENT), name, &parent);
        }
        if wanted.mode != network.mode {
            return differs(&options::field(options::MODE), &wanted.mode, &network.mode);
        }
        if wanted.flag != network.flag {
            return differs(&options::field(options::FLAG), &wanted.flag, &network.flag);
        }
        if wanted.mtu != network.mtu {
            let text = |mtu: Option<u32>| mtu.map_or("the parent's".into(), |mtu| mtu.to_string());
            return differs(wanted.mtu_field, &text(wanted.mtu), &text(network.mtu));
        }
        let dummy = matches!(network.parent, Parent::Dummy { .. });
        let switches = [
            ("--internal", self.internal || dummy, network.internal),
            (
                &options::field(options::HOST_ACCESS),
                wanted.host_access,
                network.host_access,
            ),
            (
                &options::field(options::SHARED_PARENT),
                wanted.shared_parent,
                network.shared_parent,
            ),
            (
                &options::field(options::LINK_IN_CONTAINER),
                wanted.link_in_container,
                !network.parent.is_of_host(),
            ),
            ("IPAM", self.external_ipam, network.external_ipam),
        ];
        for (field, wanted, found) in switches {
            if wanted != found {
                return differs(field, &wanted, &found);
            }
        }
        let needs = Needs {
            families,
            mode: wanted.mode,
            parent,
            gateway: wanted.mode == Mode::L2 && !network.internal && !self.external_ipam,
        };
        let pools = pools::named(self, &needs)?;
        if !pools.is_empty() && pools != network.pools {
            let text = |pools: &[super::Pool]| {
                let pools: Vec<_> = pools.iter().map(ToString::to_string).collect();
                pools.join(", ")
            };
            return differs("--subnet", &text(&pools), &text(&network.pools));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{host, network, request};

    const LINE: &str = "-o parent=eth0 -o ipvlan_mode=l2 --mtu=1400 --subnet=10.0.0.0/24 n";

    #[test]
    fn the_same_words_and_fewer_mean_the_same() {
        let made = network(LINE, &host());
        for same in [
            LINE,
            "--mtu=1400 --subnet=10.0.0.0/24 n",
            "--mtu=1400 --subnet=10.0.0.0/24 --gateway=10.0.0.1 n",
            "--mtu=1400 n",
        ] {
            request(same).check_same(&made).unwrap();
        }
        let dummy = network("n", &host());
        request("n").check_same(&dummy).unwrap();
        request("--internal n").check_same(&dummy).unwrap();
    }

    #[test]
    fn a_network_belongs_to_who_labelled_it() {
        let made = network("--label=by=cni n", &host());
        request("--label=by=cni n").check_owned(&made).unwrap();
        for other in ["n", "--label=by=docker n"] {
            request(other).check_owned(&made).unwrap_err();
        }
    }

    #[test]
    fn each_field_that_differs_is_named() {
        let made = network(LINE, &host());
        for (more, field) in [
            ("-o parent=enp3s0", "-o parent"),
            ("-o ipvlan_mode=l3", "-o ipvlan_mode"),
            ("-o ipvlan_flag=vepa", "-o ipvlan_flag"),
            ("--internal", "--internal"),
            ("-o host_access=true", "-o host_access"),
            ("-o shared_parent=true", "-o shared_parent"),
            ("-o link_in_container=true", "-o link_in_container"),
            ("--subnet=10.0.1.0/24", "--subnet"),
            ("--subnet=10.0.0.0/24 --gateway=10.0.0.9", "--subnet"),
            ("--subnet=10.0.0.0/24 --ip-range=10.0.0.8/29", "--subnet"),
        ] {
            let bad = request(&format!("--mtu=1400 {more} n"))
                .check_same(&made)
                .expect_err(more);
            assert_eq!(bad.field, field);
        }
        assert_eq!(request("n").check_same(&made).unwrap_err().field, "--mtu");
    }

    #[test]
    fn an_external_ipam_widens_the_network() {
        let mut view = host();
        let other = network("--subnet=10.9.0.0/16 other", &view);
        let mut asked = request("-o parent=eth0 n");
        asked.external_ipam = true;
        let mut made = asked.resolve(&view, super::super::Id::random(), 0).unwrap();
        assert!(made.pools.is_empty());
        view.networks = vec![other, made.clone()];
        for given in ["10.1.0.5/24", "10.1.0.6/24", "10.2.0.1/32", "fd00::5/64"] {
            made.admit(given.parse().unwrap(), &view.networks).unwrap();
        }
        let subnets: Vec<String> = made.pools.iter().map(|p| p.subnet.to_string()).collect();
        assert_eq!(subnets, ["10.1.0.0/24", "10.2.0.1/32", "fd00::/64"]);
        assert!(made.ipv6);
        for wrong in ["10.9.1.5/24", "127.0.0.1/8", "10.1.0.5/16", "0.0.0.0/0"] {
            let wrong = wrong.parse().unwrap();
            // Only what no pool holds yet is looked at.
            if made.pool_of(ipnetwork::IpNetwork::ip(&wrong)).is_none() {
                made.admit(wrong, &view.networks).unwrap_err();
            }
        }
        asked.check_same(&made).unwrap();
        assert_eq!(
            request("-o parent=eth0 n")
                .check_same(&made)
                .unwrap_err()
                .field,
            "IPAM"
        );
    }
}
