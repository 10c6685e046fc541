// Checks a dashboard against Grafana's own types. `cargo xtask` builds it.
module separation.dev/testbed/grafana

go 1.26.0

tool separation.dev/testbed/grafana

require github.com/grafana/grafana-foundation-sdk/go v0.0.22
