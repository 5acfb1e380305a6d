package broker

import (
	"errors"
	"io"
	"log/slog"
)

// NewLogger returns the logger that the configuration asks for, and its level,
// which Run moves when the configuration is read again.
func NewLogger(c Config, w io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(c.level)
	options := &slog.HandlerOptions{Level: level}
	if c.doc.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options)), level
	}
	return slog.New(slog.NewTextHandler(w, options)), level
}

func parseLevel(s string) (slog.Level, error) {
	switch s {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, errors.New("debug, info, warn or error")
}
