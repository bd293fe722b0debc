// `server PORT`: /small, /large, and /echo, which gives back what is posted, in chunks.
// `client URL ECHOES`: how much of what fetch and http.request ask for succeeds.
const http = require("http");
const [role, where, echoes] = process.argv.slice(2);
const body = Buffer.alloc(1 << 20, "netra");

function serve() {
  const sizes = { "/small": 1024, "/large": 2000000 };
  http.createServer((request, response) => {
    if (request.url === "/echo") return request.pipe(response);
    const size = sizes[request.url.split("?")[0]];
    response.writeHead(size ? 200 : 404, { "Content-Length": size || 0 });
    response.end(request.method === "HEAD" ? "" : Buffer.alloc(size || 0, "x"));
  }).listen(Number(where), "0.0.0.0");
}

function post(agent) {
  return new Promise((done, fail) => {
    const request = http.request(where + "/echo", { method: "POST", agent, headers: { Expect: "100-continue" } });
    request.on("continue", () => request.end(body));
    request.on("error", fail);
    request.on("response", (response) => {
      const pieces = [];
      response.on("data", (piece) => pieces.push(piece));
      response.on("end", () => done(Buffer.concat(pieces).equals(body) ? 1 : 0));
    });
    request.flushHeaders();
  });
}

async function ask() {
  let count = 0;
  for (let number = 0; number < 20; number++) {
    const answer = await fetch(where + "/small");
    count += (await answer.arrayBuffer()).byteLength === 1024 ? 1 : 0;
  }
  count += (await (await fetch(where + "/large")).arrayBuffer()).byteLength === 2000000 ? 1 : 0;
  count += (await fetch(where + "/none")).status === 404 ? 1 : 0;
  if (echoes === "1") {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    for (let number = 0; number < 5; number++) count += await post(agent);
    agent.destroy();
  }
  console.log("node:", count);
}

if (role === "server") serve();
else ask();
