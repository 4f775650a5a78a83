// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"log/slog"
	"os"

	"funlab.casa/omen/internal/journal"
)

var logLevels = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}

// handler is how the log is written. By itself that is the journal's own form where
// standard error is the journal, and text elsewhere.
func (c *cli) handler(stderr io.Writer) slog.Handler {
	options := &slog.HandlerOptions{Level: logLevels[c.LogLevel]}
	text := slog.NewTextHandler(stderr, options)
	switch c.LogFormat {
	case "json":
		return slog.NewJSONHandler(stderr, options)
	case "journal":
		return journal.New(options.Level, text)
	case "auto":
		if stderr == os.Stderr && journal.Connected() {
			return journal.New(options.Level, text)
		}
	}
	return text
}
