"""The browser harness itself: it sees requests, console errors and alerts, or the other tests would prove nothing."""


def test_requests_errors_and_alerts_are_seen(browser, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        "<title>x</title><img src='http://192.0.2.1/a.png'><script>console.error('oh'); undefined_name</script>"
    )
    browser.open(page)
    browser.until(lambda d: browser.requests())
    assert browser.requests() == ["http://192.0.2.1/a.png"]
    said = " ".join(browser.complaints())
    assert "oh" in said
    assert "undefined_name" in said
    browser.script("setTimeout(() => alert('hello'), 0)")
    assert browser.until(lambda d: browser.alert()) == "hello"
    browser.driver.switch_to.alert.accept()
    page.write_text("<title>y</title><p>nothing")
    browser.open(page)
    assert (browser.requests(), browser.complaints(), browser.alert()) == ([], [], None)
