import threading, time, random
import uvicorn, pytest
from datetime import timedelta
from playwright.sync_api import sync_playwright
from tests.builders import *
from local.settings import free_port
OUT="/tmp/cj/shots"
def seed(connection):
    random.seed(1)
    for code, n, tags in (("911",400,("red","blue")),("999",300,("red",)),("903",200,()),("926",1500,("gold-customers",)),("495",80,("blue",))):
        some_clients(connection, n, code=code, tags=tags)
    ids=[]
    for k in range(24):
        cid = a_campaign(connection, name=["Spring offer","Reminder <b>bold</b> \"x\"","Ein sehr langer Name einer Kampagne",None][k%4]); ids.append(cid)
        start = now()-timedelta(days=k*1.3+0.3); stop=start+timedelta(days=1)
        with connection.transaction():
            runs.select_audience(connection, cid, batch_size=5000)
        connection.execute("UPDATE campaigns SET sending_start=%s, sending_stop=%s, status=%s, finished_at=CASE WHEN %s='finished' THEN now() END WHERE id=%s",(start,stop if k else now()+HOUR,"finished" if k else "running","finished" if k else "running",cid))
        span = '20 hours' if k else '7 hours'
        connection.execute("""UPDATE messages SET token=1, revision=1, attempts=1, claimed_at=%s::timestamptz + random()*%s::interval, state=x.s, reason=CASE WHEN x.s in ('failed','unknown','expired') THEN 'x' END, sent_at=CASE WHEN x.s='sent' THEN %s::timestamptz + random()*%s::interval END
         FROM (SELECT id, CASE WHEN r<0.8 THEN 'sent' WHEN r<.84 THEN 'failed' WHEN r<.86 THEN 'unknown' WHEN r<.88 THEN 'expired' ELSE %s END s FROM (SELECT id, random() r FROM messages WHERE campaign_id=%s) q) x WHERE x.id=messages.id""",(start,span,start,span,"pending" if not k else "expired",cid))
    return ids
def test_shots(airflow_app, app_database, connection, tokens):
    ids=seed(connection); connection.commit() if not connection.autocommit else None
    port=free_port()
    server=uvicorn.Server(uvicorn.Config(airflow_app, port=port, log_level="warning"))
    t=threading.Thread(target=server.run, daemon=True); t.start()
    while not server.started: time.sleep(.1)
    base=f"http://127.0.0.1:{port}"
    admin=f"{base}/mailing/admin"
    with sync_playwright() as p:
        b=p.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        def ctx(w, scheme, role="viewer", **more):
            c=b.new_context(viewport={"width":w,"height":900}, color_scheme=scheme, timezone_id="Europe/Berlin", **more)
            c.add_cookies([{"name":"_token","value":tokens[role],"url":base}])
            page=c.new_page()
            page.on("console", lambda m: print("CONSOLE", m.type, m.text[:300]))
            page.on("pageerror", lambda m: print("PAGEERROR", m))
            page.on("request", lambda r: r.url.startswith(base) or r.url.startswith("data:") or print("OUT", r.url))
            return c, page
        for scheme in ("light","dark"):
            for w in (1280,390):
                c,page=ctx(w,scheme, device_scale_factor=2 if w==390 else 1)
                for by in ("day","campaign","operator","tag"):
                    page.goto(f"{admin}/statistics?by={by}"); page.wait_for_timeout(700)
                    print(by, w, scheme, "overflow", page.evaluate("document.documentElement.scrollWidth"))
                    page.screenshot(path=f"{OUT}/{by}-{scheme}-{w}.png", full_page=by!="campaign")
                for n,i in (("running",0),("finished",5)):
                    page.goto(f"{admin}/campaigns/{ids[i]}" if False else f"{admin}/campaigns/{ids[i]}"); page.wait_for_timeout(900)
                    print(n, page.url, w, scheme, "overflow", page.evaluate("document.documentElement.scrollWidth"), page.locator("#chart").get_attribute("aria-label"))
                    page.screenshot(path=f"{OUT}/{n}-{scheme}-{w}.png", full_page=True)
                c.close()
        # hover, switch of look, resize, live
        c,page=ctx(1280,"light")
        page.goto(f"{admin}/statistics?by=day"); page.wait_for_timeout(500)
        e=page.locator("[data-chart=columns]"); bb=e.bounding_box(); e.hover(position={"x":bb["width"]*.7,"y":150}); page.wait_for_timeout(200)
        page.screenshot(path=f"{OUT}/x-hover-light.png")
        page.emulate_media(color_scheme="dark"); page.wait_for_timeout(300)
        page.screenshot(path=f"{OUT}/x-switched-dark.png")
        page.set_viewport_size({"width":390,"height":900}); page.wait_for_timeout(500)
        print("SHRUNK", page.evaluate("document.documentElement.scrollWidth"), page.evaluate("[...document.querySelectorAll('canvas')].map(c=>[c.clientWidth,c.parentElement.clientWidth])"))
        page.screenshot(path=f"{OUT}/x-shrunk-dark.png", full_page=True)
        page.set_viewport_size({"width":1280,"height":900}); page.wait_for_timeout(500)
        print("GROWN", page.evaluate("[...document.querySelectorAll('canvas')].map(c=>[c.clientWidth,c.parentElement.clientWidth])"))
        page.goto(f"{admin}/statistics?by=tag"); page.wait_for_timeout(500)
        e=page.locator("[data-chart=bars]"); e.hover(position={"x":400,"y":60}); page.wait_for_timeout(200)
        page.screenshot(path=f"{OUT}/x-hover-tag.png")
        page.goto(f"{admin}/campaigns/{ids[0]}"); page.wait_for_timeout(800)
        page.evaluate("window.first=document.querySelector('#chart canvas'); window.muts=0; new MutationObserver(m=>window.muts+=m.length).observe(document.querySelector('#chart'),{childList:true,subtree:true})")
        e=page.locator("#chart"); 
        # switch "failed" off by a click at its legend
        page.evaluate("1"); e.scroll_into_view_if_needed(); e.click(position={"x":82,"y":17}); page.wait_for_timeout(200)
        e.hover(position={"x":300,"y":150}); page.wait_for_timeout(200)
        page.screenshot(path=f"{OUT}/x-live-before.png")
        print(page.locator("#chart").get_attribute("aria-label"))
        connection.execute("UPDATE messages SET state='sent', sent_at=now(), claimed_at=now(), token=1, revision=1, attempts=1 WHERE id IN (SELECT id FROM messages WHERE campaign_id=%s AND state='pending' LIMIT 150)",(ids[0],))
        page.wait_for_timeout(4000)
        print(page.locator("#chart").get_attribute("aria-label"), "same canvas", page.evaluate("window.first===document.querySelector('#chart canvas')"), "mutations", page.evaluate("window.muts"))
        page.screenshot(path=f"{OUT}/x-live-after.png")
        page.goto(f"{admin}/statistics?by=day"); 
        c.close()
        # without the library
        c,page=ctx(1280,"light")
        page.route("**/chart.umd.min.js*", lambda r: r.abort())
        page.goto(f"{admin}/campaigns/{ids[0]}"); page.wait_for_timeout(800)
        page.screenshot(path=f"{OUT}/x-without.png", full_page=True)
        b.close()
    server.should_exit=True; t.join()
