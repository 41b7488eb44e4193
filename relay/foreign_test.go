package relay_test

import (
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/cloudevents/sdk-go/protocol/kafka_sarama/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/google/go-cmp/cmp"

	"github.com/seed-048de892/walpost/outbox"
)

// TestForeignReader has the CloudEvents SDK, on another Kafka client, read a
// record that the relay published.
func TestForeignReader(t *testing.T) {
	f := newFixture(t)
	f.config.TopicPartitions = 1
	stop := f.start(t)
	event := f.event("42", 3)
	event.ID = outbox.NewID()
	event.Headers = map[string]string{outbox.HeaderContentType: "application/json; charset=utf-8", "requestId": "r1"}
	f.write(t, event)
	ours := f.read(t, 1)[0]
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	consumer, err := sarama.NewConsumer(f.config.Brokers, sarama.NewConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	partition, err := consumer.ConsumePartition(f.topic, 0, sarama.OffsetOldest)
	if err != nil {
		t.Fatal(err)
	}
	defer partition.Close()
	var record *sarama.ConsumerMessage
	select {
	case record = <-partition.Messages():
	case <-time.After(30 * time.Second):
		t.Fatal("the other client reads nothing")
	}
	got, err := binding.ToEvent(t.Context(), kafka_sarama.NewMessageFromConsumerMessage(record))
	if err != nil {
		t.Fatal(err)
	}
	if err := got.Validate(); err != nil {
		t.Errorf("the SDK finds the event invalid: %v", err)
	}
	attributes := map[string]any{
		"specversion": got.SpecVersion(), "id": got.ID(), "source": got.Source(), "type": got.Type(), "subject": got.Subject(),
		"datacontenttype": got.DataContentType(), "time": got.Time(), "data": string(got.Data()), "key": string(record.Key),
	}
	for name, value := range got.Extensions() {
		if !strings.HasPrefix(name, "kafka") { // where the SDK found it
			attributes[name] = value
		}
	}
	want := map[string]any{
		"specversion": "1.0", "id": event.ID.String(), "source": f.config.Source, "type": "UserCreated", "subject": "42",
		"datacontenttype": "application/json; charset=utf-8", "time": ours.Time, "data": string(event.Payload), "key": "42",
		"sequence": "0000000000000000001", "aggregatetype": "user", "aggregateversion": "3", "position": ours.Position,
	}
	if diff := cmp.Diff(want, attributes); diff != "" {
		t.Errorf("attributes, -want +got:\n%s", diff)
	}
}
