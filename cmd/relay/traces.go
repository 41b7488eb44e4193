package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// traces exports spans by OTLP. Where to, with what headers and certificates,
// and how many of them is said by the variables that OpenTelemetry defines.
type traces struct {
	provider *sdktrace.TracerProvider
	log      *slog.Logger
}

// open makes the provider. Nothing is sent before the first span.
func (t *traces) open(ctx context.Context, log *slog.Logger) error {
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return fmt.Errorf("traces: %w", err)
	}
	// The environment comes last: OTEL_SERVICE_NAME wins.
	about, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "relay")), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return fmt.Errorf("traces: OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		log.WarnContext(context.WithoutCancel(ctx), "spans were not exported", slog.Any("error", err))
	}))
	t.log = log
	t.provider = sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))
	return nil
}

// closeGrace bounds the export of the last spans.
const closeGrace = 5 * time.Second

// close exports what is left after ctx has ended.
func (t *traces) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.log.WarnContext(ctx, "the last spans were not exported", slog.Any("error", err))
	}
}
