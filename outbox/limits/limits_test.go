package limits

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// answer is what Kafka says of one topic; value nil: nothing about the limit.
func answer(topic string, code int16, value *string) kmsg.DescribeConfigsResponseResource {
	r := kmsg.NewDescribeConfigsResponseResource()
	r.ResourceName, r.ErrorCode = topic, code
	entry := kmsg.NewDescribeConfigsResponseResourceConfig()
	entry.Name, entry.Value = config, value
	r.Configs = append(r.Configs, entry)
	return r
}

func TestRead(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		answers []kmsg.DescribeConfigsResponseResource
		want    map[string]int
		wantErr []string
	}{
		"limits": {
			answers: []kmsg.DescribeConfigsResponseResource{answer("a", 0, new("1048588")), answer("b", 0, new("2049"))},
			want:    map[string]int{"a": 1046540, "b": 1},
		},
		"problems": {
			answers: []kmsg.DescribeConfigsResponseResource{answer("a", kerr.TopicAuthorizationFailed.Code, nil), answer("b", 0, new("2048"))},
			wantErr: []string{"topic a: TOPIC_AUTHORIZATION_FAILED", "kafka-acls.sh", "topic b: max.message.bytes 2048 leaves nothing"},
		},
		"nothing said": {
			answers: []kmsg.DescribeConfigsResponseResource{answer("a", 0, nil)},
			wantErr: []string{"topic a: the answer lacks max.message.bytes", "topic b: Kafka did not answer"},
		},
		"no number": {
			answers: []kmsg.DescribeConfigsResponseResource{answer("a", 0, new("1e6")), answer("b", 0, new("1000000"))},
			wantErr: []string{`topic a: max.message.bytes "1e6" is no number`},
		},
	}
	for name, tt := range tests {
		got, err := read(&kmsg.DescribeConfigsResponse{Resources: tt.answers}, []string{"a", "b"})
		if diff := cmp.Diff(tt.want, got); diff != "" || (err != nil) != (tt.wantErr != nil) {
			t.Errorf("%s: %v, %v", name, diff, err)
		}
		for _, want := range tt.wantErr {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v does not say %q", name, err, want)
			}
		}
	}
}
