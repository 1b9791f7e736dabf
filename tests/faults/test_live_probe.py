from tests import factories


def test_chat(live_portal, tenant_a):
    key = factories.api_key(tenant_a)
    with live_portal.client(key.token) as c:
        r = c.post(
            "/v1/chat/completions",
            json={
                "model": "fake-chat",
                "messages": [{"role": "user", "content": "hi"}],
                "max_tokens": 8,
            },
        )
        print(r.status_code, r.text)
        assert r.status_code == 200
