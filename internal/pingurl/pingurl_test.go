package pingurl

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const uuid = "6f7d4c1e-91c2-4c3a-9f0e-2a52d3a4b1c0"

// The shapes that the URLs of services have, and those that operators give to servers
// of their own.
var shapes = []string{
	"https://hc-ping.com/" + uuid,
	"https://hc-ping.com/" + uuid + "/",
	"https://hc-ping.com/" + uuid + "/fail",
	"https://hc-ping.com/" + uuid + "/start",
	"https://hc-ping.com/" + uuid + "/log",
	"https://hc-ping.com/" + uuid + "/0",
	"https://hc-ping.com/" + uuid + "/255",
	"https://hc-ping.com/" + uuid + "?rid=" + uuid,
	"https://hc-ping.com/pingkey_A-9/nightly-backup",
	"https://hc-ping.com/pingkey_A-9/nightly-backup?create=1",
	"https://hc-ping.com/pingkey_A-9/nightly-backup/fail?create=1",
	"http://hc:8000/ping/" + uuid,
	"https://hc.example.com/ping/" + uuid,
	"https://hc.example.com/health/ping/" + uuid + "/fail",
	"https://cronitor.link/p/d41d8cd98f00b204e980/nightly",
	"https://cronitor.link/p/d41d8cd98f00b204e980/nightly?state=complete",
	"https://cronitor.link/p/d41d8cd98f00b204e980/nightly?state=fail&message={reason}",
	"https://cronitor.link/p/d41d8cd98f00b204e980/nightly?state=run&env=prod&host=a.b",
	"https://cronitor.link/p/d41d8cd98f00b204e980/nightly?metric=count:5&metric=duration:1.5",
	"https://uptime.betterstack.com/api/v1/heartbeat/ToKeN123",
	"https://uptime.betterstack.com/api/v1/heartbeat/ToKeN123/fail",
	"https://uptime.betterstack.com/api/v1/heartbeat/ToKeN123/3",
	"https://betteruptime.com/api/v1/heartbeat/ToKeN123",
	"https://nosnch.in/c0ffee1234",
	"https://nosnch.in/c0ffee1234?m=all%20good",
	"https://nosnch.in/c0ffee1234?m={reason}&s=1",
	"https://nosnch.in/c0ffee1234?s=1",
	"https://kuma.example/api/push/kumaT0ken?status=up&msg=OK&ping=",
	"https://kuma.example/api/push/kumaT0ken?status=down&msg={reason}&ping=",
	"http://192.0.2.7:3001/api/push/kumaT0ken",
	"http://[2001:db8::7]:3001/api/push/kumaT0ken",
	"https://gatus.example/api/v1/endpoints/core_app/external?success=true",
	"https://gatus.example/api/v1/endpoints/core_app/external?success=false&error={reason}",
	"https://gatus.example/api/v1/endpoints/_app/external?success=true&duration=10s",
	"https://api.opsgenie.com/v2/heartbeats/my-heartbeat/ping",
	"https://api.eu.opsgenie.com/v2/heartbeats/my%20heartbeat/ping?apiKey=" + uuid,
	"https://o42.ingest.sentry.io/api/42/cron/my-monitor/5entryKey/?status=ok",
	"https://o42.ingest.sentry.io/api/42/cron/my-monitor/5entryKey/?status=error&environment=prod",
	"https://events.pagerduty.example/integration/abc/enqueue",
	"https://hooks.slack.com/services/T000/B000/XXXX",
	"https://discord.com/api/webhooks/123/abc-DEF_ghi?wait=true",
	"https://api.telegram.org/bot123456:ABC-DEF1234/sendMessage?chat_id=@ops&text={reason}",
	"https://ntfy.sh/my-topic?title=heartbeat&tags=warning,skull",
	"https://push.example/message?token=A.b-c~d&priority=5",
	"https://maker.ifttt.com/trigger/down/with/key/abc?value1={reason}",
	"https://user:p%40ss%3Aw@backup.example/ping",
	"https://user@backup.example/ping-of-user",
	"https://backup.example/ping;v=1/a,b?x=1;y=2",
	"https://backup.example/p/(a)/!b'*+$&=@:?q=(a)!'*",
	"https://backup.example/%E2%99%A5?utf8=%E2%9C%93",
	"https://bücher.example/ping",
	"https://backup.example./with-a-dot",
	"https://backup.example:8443",
	"https://backup.example?token=abc==",
	"https://relay.example/?target=https%3A%2F%2Fhc-ping.com%2F" + uuid,
	"https://relay.example/?target=https://hc-ping.com/" + uuid + "?rid=1",
	"https://script.example/macros/s/AKfyc-_/exec?sheet=1&msg=%22{reason}%22",
	"http://localhost:9000/hooks/beat?payload={\"a\":[1,2]}",
	"https://hook.example/?payload={%22reason%22:%22{reason}%22}",
	"https://hook.example/?payload=%7B%22reason%22:%22{reason}%22%7D",
	"http://pushgateway:9091/metrics/job/backup/instance/a",
	"http://a/b",
}

// A real URL is accepted, and is requested as it is written.
func TestParse(t *testing.T) {
	t.Parallel()
	for _, raw := range shapes {
		u, err := Parse(raw)
		require.NoError(t, err, raw)
		plain, err := url.Parse(raw)
		require.NoError(t, err)
		require.Equal(t, plain, u)
		require.True(t, Same(u, plain))
	}
	for i, a := range shapes {
		for _, b := range shapes[:i] {
			ua, err := Parse(a)
			require.NoError(t, err)
			ub, err := Parse(b)
			require.NoError(t, err)
			require.Equal(t, strings.TrimSuffix(a, "/") == strings.TrimSuffix(b, "/"), Same(ua, ub), "%s %s", a, b)
		}
	}
}

// Each of those with a mistake in it is refused, and not repeated.
func TestParseMistakes(t *testing.T) {
	t.Parallel()
	for _, raw := range shapes {
		base, query, _ := strings.Cut(raw, "?")
		_, rest, _ := strings.Cut(raw, "://")
		for _, wrong := range []string{
			raw + "#", raw + "#5", "https://" + raw, raw + "," + raw, raw + " " + raw, " " + raw, raw + "\n",
			base + "${UUID}?" + query, base + "<uuid>?" + query, raw + "${UUID}", base + "{uuid}?" + query,
			base + "{reason}?" + query, base + "?m={Reason}&" + query, base + "?m={reason&" + query, base + "?m=%7breason%7d&" + query,
			base + raw, base + "?a=1" + raw, base + "?m={reason}" + raw, base + "?" + query + "&x=1;" + raw,
			rest, "//" + rest, "ftp://" + rest, "https:/" + rest, "https:" + rest,
		} {
			_, err := Parse(wrong)
			require.Error(t, err, wrong)
			require.NotContains(t, err.Error(), rest)
		}
	}
}

// What is put beside a URL is checked too.
func TestCheckHeaderAndBody(t *testing.T) {
	t.Parallel()
	require.NoError(t, CheckHeader(nil))
	require.NoError(t, CheckHeader(http.Header{"Authorization": {"Bearer abc=="}, "x-a!~": {"tab\tand é"}}))
	for _, bad := range []http.Header{{"": {""}}, {"A B": {""}}, {"A": {"x\r\ny"}}, {"A": {"x", "\x7f"}}, {"A": {"because {reason}"}}} {
		require.Error(t, CheckHeader(bad))
	}
	for _, good := range []string{"", "{reason}", "x {reason} {reason}", `{"reason":"{reason}"}`, "reason}", "{reason", "<reason>", "${RE}"} {
		require.NoError(t, CheckBody(good), good)
	}
	for _, bad := range []string{"{Reason}", "{ reason}", "{reasons}", "{{reason}}", "${reason}", "{reason} and {REASON}"} {
		require.Error(t, CheckBody(bad), bad)
	}
}
