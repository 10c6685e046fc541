// Reads a dashboard as JSON and fails if Grafana's types do not have one of its fields, or lack a required one.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	// Types of the panels and of Prometheus' queries.
	plugins.RegisterDefaultPlugins()
	var parsed dashboard.Dashboard
	text, err := io.ReadAll(os.Stdin)
	if err == nil {
		err = parsed.UnmarshalJSONStrict(text)
	}
	// Without an error the SDK returns an empty list of errors.
	var found cog.BuildErrors
	if errors.As(err, &found) && len(found) == 0 {
		err = nil
	}
	if err == nil {
		err = parsed.Validate()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
