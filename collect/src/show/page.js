'use strict';
const $=id=>document.getElementById(id);
const NS='http://www.w3.org/2000/svg';
// What steers a terminal or turns the order of letters is shown as what it is.
const seen=text=>String(text??'').replace(/[\u0000-\u001f\u007f-\u009f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,c=>'\\u'+c.charCodeAt(0).toString(16).padStart(4,'0'));
const cut=(text,max)=>{text=seen(text);return text.length>max?text.slice(0,max-1)+'…':text};
function el(tag,attributes,...children){const e=document.createElement(tag);fill(e,attributes,children);return e}
function svg(tag,attributes,...children){const e=document.createElementNS(NS,tag);fill(e,attributes,children);return e}
function fill(e,attributes,children){for(const[k,v]of Object.entries(attributes||{})){if(v==null||v===false)continue;if(k.startsWith('on'))e.addEventListener(k.slice(2),v);else e.setAttribute(k,v===true?'':v)}for(const c of children.flat())if(c!=null)e.append(typeof c==='object'?c:seen(c))}
const num=n=>n==null?'–':n>=1e6?(n/1e6).toFixed(1)+' M':n>=1e4?(n/1e3).toFixed(1)+' k':n>=100||Number.isInteger(n)?Math.round(n).toLocaleString('en'):n.toFixed(n<1?2:1);
const us=n=>n==null?'–':n<1000?Math.round(n)+' µs':n<1e6?(n/1e3).toFixed(n<1e4?2:1)+' ms':(n/1e6).toFixed(2)+' s';
const share=n=>(n*100).toFixed(n<.1?1:0)+' %';
const age=s=>s<120?s+' s':s<7200?Math.round(s/60)+' min':s<172800?(s/3600).toFixed(1)+' h':Math.round(s/86400)+' d';
const size=n=>n<1e6?(n/1e3).toFixed(0)+' kB':(n/1e6).toFixed(n<1e7?1:0)+' MB';
const clock=us=>new Date(us/1000).toLocaleTimeString('en-GB',{hour12:false})+'.'+String(Math.floor(us/1000%1000)).padStart(3,'0');
const colour=name=>{let h=2166136261;for(const c of name)h=Math.imul(h^c.charCodeAt(0),16777619);return`hsl(${(h>>>0)%360} 55% 48%)`};
async function get(path,parameters){const q=new URLSearchParams();for(const[k,v]of Object.entries(parameters||{}))if(v!=null&&v!=='')for(const one of[].concat(v))q.append(k,one);const text=q.toString();const answer=await fetch(path+(text?'?'+text:''));const body=await answer.json().catch(()=>({}));if(!answer.ok)throw Error(body.errors?.[0]?.msg||'status '+answer.status);return body}
let timer=0,serial=0,selected=null,marked=null;
const view=$('view');
function show(...children){view.replaceChildren(...children.flat().filter(Boolean))}
function trouble(error){const s=$('state');s.textContent=seen(error.message||error);s.className='bad'}
function span(){const last=+$('last').value;const at=$('until').value;const until=at?Math.floor(new Date(at).getTime()/1000):Math.floor(Date.now()/1000)+1;return{from:until-last,until,last,live:!at}}
function base(w){const a=$('against').value;if(!a)return{};const back=a==='before'?w.last:+a;return{base_from:w.from-back,base_until:w.until-back}}
function route(){const[path,query]=location.hash.slice(1).split('?');return{path:path||'map',q:new URLSearchParams(query||'')}}
function link(path,parameters,...text){const q=new URLSearchParams(parameters||{}).toString();return el('a',{href:'#'+path+(q?'?'+q:'')},...text)}
async function draw(again){
 clearTimeout(timer);const mine=++serial;const{path,q}=route();const top=path.split('/')[0];
 const tab=top==='trace'||top==='compare'?'traces':top;
 for(const t of document.querySelectorAll('nav a'))t.setAttribute('aria-selected',t.id==='tab-'+tab);
 try{
  const views={map:drawMap,traces:drawTraces,trace:drawTrace,compare:drawCompare,operations:drawOperations,sidecars:drawSidecars};
  const s=get('/api/netra/state');
  await(views[top]||drawMap)(path,q,again,()=>mine===serial);
  state(await s);
 }catch(error){trouble(error)}
 if(mine===serial&&(top==='map'||top==='sidecars'||top==='operations')&&span().live)timer=setTimeout(()=>draw(true),5000);
}
function state(s){const e=$('state');e.className=s.overflows?'bad':'';e.textContent=`${num(s.spans)} spans · ${num(s.here)} kept · ${size(s.bytes)} of ${size(s.budget)}`+(s.overflows?` · ${num(s.overflows)} without a name of their own`:'');$('kept').textContent=`${num(s.kept)} kept for what they tell, ${num(s.evicted)} made room · version ${s.version}`}

// ---- map
function layout(nodes,edges){
 const at=new Map(nodes.map(n=>[n.id,n]));const out=new Map(nodes.map(n=>[n.id,[]])),into=new Map(nodes.map(n=>[n.id,[]]));
 for(const e of edges)if(e.from!==e.to&&at.has(e.from)&&at.has(e.to)){out.get(e.from).push(e.to);into.get(e.to).push(e.from)}
 // Edges that lead back are left out of the ranks: a walk from those whom nobody asks.
 const rank=new Map(),onWay=new Set(),done=new Set(),order=[];
 const roots=[...nodes].sort((a,b)=>into.get(a.id).length-into.get(b.id).length);
 for(const root of roots){if(done.has(root.id))continue;const stack=[[root.id,0]];onWay.add(root.id);while(stack.length){const top=stack[stack.length-1];const next=out.get(top[0])[top[1]++];if(next===undefined){onWay.delete(top[0]);done.add(top[0]);order.push(top[0]);stack.pop()}else if(!done.has(next)&&!onWay.has(next)){onWay.add(next);stack.push([next,0])}}}
 const place=new Map(order.map((id,i)=>[id,i]));
 for(const id of order.reverse()){rank.set(id,rank.get(id)||0);for(const next of out.get(id))if(place.get(next)<place.get(id))rank.set(next,Math.max(rank.get(next)||0,rank.get(id)+1))}
 // Long ways round make a map of one line: then by the shortest way from those whom nobody asks.
 if(Math.max(...rank.values())>12){rank.clear();let next=roots.filter(n=>!into.get(n.id).length).map(n=>n.id);if(!next.length)next=[roots[0].id];for(let depth=0;next.length;depth++){const now=next.filter(id=>!rank.has(id));next=[];for(const id of now)rank.set(id,depth);for(const id of now)next.push(...out.get(id).filter(to=>!rank.has(to)))}for(const n of nodes)if(!rank.has(n.id))rank.set(n.id,0)}
 const layers=[];for(const n of nodes)(layers[rank.get(n.id)]??=[]).push(n);
 // A layer that is too high is parted.
 const high=Math.max(12,Math.ceil(Math.sqrt(nodes.length)*1.6));const parts=[];
 for(const layer of layers)if(layer){layer.sort((a,b)=>b.figures.count-a.figures.count||a.id-b.id);for(let i=0;i<layer.length;i+=high)parts.push(layer.slice(i,i+high))}
 const pos=new Map();parts.forEach(layer=>layer.forEach((n,i)=>pos.set(n.id,i-layer.length/2)));
 for(let round=0;round<6;round++)for(const layer of round%2?[...parts].reverse():parts){const wish=n=>{const all=(round%2?out:into).get(n.id).concat((round%2?into:out).get(n.id));return all.length?all.reduce((s,id)=>s+pos.get(id),0)/all.length:pos.get(n.id)};const w=new Map(layer.map(n=>[n.id,wish(n)]));layer.sort((a,b)=>w.get(a.id)-w.get(b.id));layer.forEach((n,i)=>pos.set(n.id,i-layer.length/2))}
 const W=168,H=40,DX=W+92,DY=H+24,xy=new Map();
 parts.forEach((layer,x)=>layer.forEach((n,i)=>xy.set(n.id,{x:x*DX,y:(i-(layer.length-1)/2)*DY})));
 return{xy,W,H};
}
function change(e,b){if(!b)return'new';const p=(a,b)=>b?a/b:1;if(e.figures.error_share>b.figures.error_share+.02||p(e.figures.p99_us,b.figures.p99_us)>1.5)return'worse';if(e.figures.error_share+.02<b.figures.error_share||p(e.figures.p99_us,b.figures.p99_us)<.66)return'better';return''}
let box=null,known='';
async function drawMap(path,q,again,current){
 const w=span(),b=base(w);const answer=await get('/api/netra/map',{from:w.from,until:w.until,...b});if(!current())return;
 const{map}=answer,before=answer.base;
 if(!map.nodes.length){show(el('div',{class:'card'},el('h2',{},'Nothing yet'),el('p',{},'No spans ended in this window. Sidecars send them by JAEGER_AGENT_HOST, or by OTEL_EXPORTER_OTLP_ENDPOINT=http://…:4318.')));return}
 const key=e=>e.from+' '+e.to+' '+e.protocol;const old=new Map((before?.edges||[]).map(e=>[key(e),e]));
 let edges=map.edges.map(e=>({...e,old:old.get(key(e)),how:before?change(e,old.get(key(e))):''}));
 let nodes=[...map.nodes];
 if(before){const now=new Set(map.edges.map(key)),ids=new Set(nodes.map(n=>n.id));for(const e of before.edges)if(!now.has(key(e)))edges.push({...e,old:e,how:'gone'});for(const n of before.nodes)if(!ids.has(n.id))nodes.push({...n,figures:{...n.figures,count:0,rate:0,error_share:0},own_share:0})}
 const names=new Map(nodes.map(n=>[n.id,n]));const all=[nodes,edges];
 const near=id=>new Set(edges.flatMap(e=>e.from===id?[e.to]:e.to===id?[e.from]:[]).concat(id));
 const on=selected!=null&&names.has(selected)?near(selected):null;
 // Of a large system, a chosen node's neighbours are all that is drawn.
 if(on&&nodes.length>120){[nodes,edges]=[nodes.filter(n=>on.has(n.id)),edges.filter(e=>on.has(e.from)&&on.has(e.to))]}
 const{xy,W,H}=layout(nodes,edges);
 const g=svg('g',{});const most=Math.max(...edges.map(e=>e.figures.rate),.001);
 for(const e of edges){const a=xy.get(e.from),z=xy.get(e.to);if(!a||!z)continue;let d;
  if(e.from===e.to)d=`M${a.x+W*.7} ${a.y} c40 -44 -70 -44 -40 0`;
  else{const x1=a.x+W,y1=a.y+H/2,x2=z.x,y2=z.y+H/2;const back=x2<x1;d=back?`M${a.x+W/2} ${a.y+H} C${a.x+W/2} ${a.y+H+70} ${z.x+W/2} ${z.y+H+70} ${z.x+W/2} ${z.y+H}`:`M${x1} ${y1} C${x1+46} ${y1} ${x2-46} ${y2} ${x2-6} ${y2}`;if(!back)g.append(svg('polygon',{class:'tip'+(on&&e.from!==selected&&e.to!==selected?' off':''),points:`${x2},${y2} ${x2-7},${y2-4} ${x2-7},${y2+4}`}))}
  const bad=e.figures.error_share>.01;const off=on&&e.from!==selected&&e.to!==selected;
  const said=`${names.get(e.from).name} to ${names.get(e.to).name}${e.protocol?' by '+e.protocol:''}: ${num(e.figures.rate)} a second, ${share(e.figures.error_share)} errors, p50 ${us(e.figures.p50_us)}, p99 ${us(e.figures.p99_us)}`+(e.how?' ('+e.how+')':'');
  g.append(svg('path',{class:'edge'+(bad&&!e.how?' bad':'')+(e.how?' '+e.how:'')+(off?' off':''),d,'stroke-width':1+3.5*Math.sqrt(e.figures.rate/most)},svg('title',{},said)));
  if(!off&&e.from!==e.to&&edges.length<60){const mx=a.x+W+(z.x-a.x-W)*.62,my=a.y+(z.y-a.y)*.7+H/2;g.append(svg('text',{class:'label',x:mx,y:my-4},`${num(e.figures.rate)}/s ${us(e.figures.p99_us)}`+(bad?' '+share(e.figures.error_share):'')))}
 }
 for(const n of nodes){const p=xy.get(n.id);const bad=n.figures.error_share>.01;
  const said=`${n.sort} ${n.name}: ${num(n.figures.rate)} requests a second, ${share(n.figures.error_share)} errors, p99 ${us(n.figures.p99_us)}, ${share(n.own_share)} of all time is its own`;
  const choose=()=>{selected=selected===n.id?null:n.id;draw(true)};
  g.append(svg('g',{class:'node '+n.sort+(bad?' bad':'')+(selected===n.id?' on':'')+(on&&!on.has(n.id)?' off':''),transform:`translate(${p.x} ${p.y})`,tabindex:0,role:'button','aria-label':seen(said),'aria-pressed':selected===n.id?'true':'false','data-id':n.id,onclick:choose,onkeydown:k=>{if(k.key==='Enter'||k.key===' '){k.preventDefault();choose()}}},
   svg('title',{},said),svg('rect',{class:'box',width:W,height:H,rx:n.sort==='database'?14:n.sort==='queue'?2:7}),
   svg('rect',{class:'heat',x:3,y:H-6,width:Math.max(0,(W-6)*Math.min(1,n.own_share)),height:3,rx:1}),
   svg('text',{x:9,y:16},cut(n.name,23)),svg('text',{class:'small',x:9,y:29},(n.figures.count?`${n.protocols.join(' ')||n.sort} · ${num(n.figures.rate)}/s · p99 ${us(n.figures.p99_us)}`:n.sort).slice(0,32))));
 }
 const xs=[...xy.values()];const x0=Math.min(...xs.map(p=>p.x))-30,y0=Math.min(...xs.map(p=>p.y))-50,x1=Math.max(...xs.map(p=>p.x))+W+30,y1=Math.max(...xs.map(p=>p.y))+H+80;
 const shape=nodes.map(n=>n.id).join();if(!box||known!==shape){box=[x0,y0,x1-x0,y1-y0];known=shape}
 const focus=again&&document.activeElement?.dataset?.id;
 const picture=svg('svg',{id:'map',viewBox:box.join(' '),role:'group','aria-label':`Map of ${nodes.length} nodes and ${edges.length} calls`,preserveAspectRatio:'xMidYMid meet'},g);
 move(picture);
 show(el('div',{class:'split'},el('div',{},picture,edgeTable(edges,names,!!before)),aside(...all,names)));
 if(focus!=null)picture.querySelector(`[data-id="${focus}"]`)?.focus();
}
function move(picture){
 const apply=()=>picture.setAttribute('viewBox',box.join(' '));
 picture.addEventListener('wheel',e=>{e.preventDefault();const f=e.deltaY>0?1.15:1/1.15;const r=picture.getBoundingClientRect();const px=box[0]+box[2]*(e.clientX-r.left)/r.width,py=box[1]+box[3]*(e.clientY-r.top)/r.height;box=[px-(px-box[0])*f,py-(py-box[1])*f,box[2]*f,box[3]*f];apply()},{passive:false});
 let from=null;picture.addEventListener('pointerdown',e=>{if(!e.target.closest('.node'))from=[e.clientX,e.clientY,...box]});
 picture.addEventListener('pointermove',e=>{if(!from)return;const r=picture.getBoundingClientRect();const k=Math.max(box[2]/r.width,box[3]/r.height);box[0]=from[2]-(e.clientX-from[0])*k;box[1]=from[3]-(e.clientY-from[1])*k;apply()});
 for(const end of['pointerup','pointerleave'])picture.addEventListener(end,()=>{from=null});
}
function aside(nodes,edges,names){
 const n=names.get(selected);
 if(!n){const slow=[...nodes].filter(n=>n.own_us).sort((a,b)=>b.own_us-a.own_us).slice(0,12);
  const bad=[...edges].filter(e=>e.figures.errors).sort((a,b)=>b.figures.errors-a.figures.errors).slice(0,8);
  return el('aside',{class:'card','aria-label':'What stands out'},el('label',{},'find ',el('input',{list:'names',name:'node',size:22,onchange:e=>{const found=nodes.find(n=>n.name===e.target.value);if(found){selected=found.id;draw(true)}}})),el('datalist',{id:'names'},nodes.slice(0,2000).map(n=>el('option',{value:n.name}))),el('h3',{},'Where the time goes'),el('ul',{class:'plain'},slow.map(n=>el('li',{},el('b',{},share(n.own_share)),' ',cut(n.name,34)))),
   bad.length?el('h3',{},'What fails'):null,el('ul',{class:'plain'},bad.map(e=>el('li',{},el('b',{class:'bad'},share(e.figures.error_share)),' ',cut(names.get(e.from).name,20),' → ',cut(names.get(e.to).name,20)))),
   changes(edges,names))}
 const list=(title,all,other)=>all.length?[el('h3',{},title),el('ul',{class:'plain'},all.map(e=>el('li',{},el('button',{onclick:()=>{selected=e[other];draw(true)}},cut(names.get(e[other]).name,26)),` ${num(e.figures.rate)}/s `,e.figures.errors?el('span',{class:'bad'},share(e.figures.error_share)):null,` p99 ${us(e.figures.p99_us)}`)))]:[];
 const f=n.figures,service=n.sort==='service';
 return el('aside',{class:'card','aria-label':'Selected node'},el('h2',{},n.name),el('dl',{},el('dt',{},'is a'),el('dd',{},n.sort,n.protocols.length?' · '+n.protocols.join(', '):''),el('dt',{},'requests'),el('dd',{},`${num(f.rate)}/s (${num(f.count)})`),el('dt',{},'errors'),el('dd',{class:f.errors?'bad':''},`${share(f.error_share)} (${num(f.errors)})`),el('dt',{},'p50, p95, p99'),el('dd',{},`${us(f.p50_us)}, ${us(f.p95_us)}, ${us(f.p99_us)}`),el('dt',{},'own time'),el('dd',{},`${share(n.own_share)} of all`)),
  service?el('p',{},link('traces',{service:n.name},'traces'),' · ',link('traces',{service:n.name,status:'error'},'failed'),' · ',link('operations',{service:n.name},'operations')):null,
  ...list('asked by',edges.filter(e=>e.to===n.id&&e.from!==n.id),'from'),...list('asks',edges.filter(e=>e.from===n.id&&e.to!==n.id),'to'));
}
function changes(edges,names){const all=edges.filter(e=>e.how);if(!all.length)return null;return el('div',{id:'changes'},el('h3',{},'What changed'),el('ul',{class:'plain'},all.slice(0,20).map(e=>el('li',{},el('b',{class:e.how==='worse'?'bad':e.how==='gone'?'dim':'good'},e.how),` ${cut(names.get(e.from).name,18)} → ${cut(names.get(e.to).name,18)}`,e.old&&e.how!=='gone'?el('span',{class:'dim'},` p99 ${us(e.old.figures.p99_us)} → ${us(e.figures.p99_us)}, errors ${share(e.old.figures.error_share)} → ${share(e.figures.error_share)}`):null))))}
function edgeTable(edges,names,diff){const rows=[...edges].sort((a,b)=>b.figures.count-a.figures.count).slice(0,300);
 return el('details',{class:'card',open:edges.length<40},el('summary',{},`${edges.length} calls as a table`),el('div',{class:'scroll'},el('table',{},el('thead',{},el('tr',{},...['from','to','protocol'].map(t=>el('th',{class:'l',scope:'col'},t)),...['calls','/s','errors','p50','p99'].map(t=>el('th',{scope:'col'},t)),diff?el('th',{class:'l',scope:'col'},'change'):null)),
 el('tbody',{},rows.map(e=>el('tr',{},el('td',{class:'l'},cut(names.get(e.from).name,40)),el('td',{class:'l'},cut(names.get(e.to).name,40)),el('td',{class:'l'},e.protocol),el('td',{},num(e.figures.count)),el('td',{},num(e.figures.rate)),el('td',{class:e.figures.errors?'bad':''},share(e.figures.error_share)),el('td',{},us(e.figures.p50_us)),el('td',{},us(e.figures.p99_us)),diff?el('td',{class:'l'},e.how):null))))))}

// ---- traces
async function services(){return(await get('/api/services')).data}
async function drawTraces(path,q,again,current){
 const field=name=>q.get(name)||'';const list=await services();if(!current())return;
 const input=(name,label,attributes)=>el('label',{},label,' ',el('input',{name,value:field(name),...attributes}));
 const form=el('form',{class:'card',role:'search','aria-label':'Search traces',onsubmit:e=>{e.preventDefault();const p=new URLSearchParams();for(const[k,v]of new FormData(form))if(v)p.append(k,v.trim());const id=p.get('id');if(id){location.hash='trace/'+encodeURIComponent(id);return}const next='#traces?'+p;if(location.hash===next)draw();else location.hash=next}},
  el('label',{},'service ',el('select',{name:'service'},el('option',{value:''},'any'),list.map(s=>el('option',{value:s,selected:s===field('service')},s)))),
  input('operation','operation',{size:18}),el('label',{},'that are ',el('select',{name:'status'},[['','all'],['error','failed'],['slow','slow'],['rare','rare']].map(([v,t])=>el('option',{value:v,selected:v===field('status')},t)))),
  input('minDuration','from',{size:6,placeholder:'10ms'}),input('maxDuration','to',{size:6,placeholder:'1s'}),input('tag','tag',{size:16,placeholder:'key=value'}),el('label',{},'limit ',el('select',{name:'limit'},[20,100,500].map(n=>el('option',{value:n,selected:String(n)===field('limit')},n)))),input('id','trace id',{size:12,id:'search'}),el('button',{class:'go'},'search'));
 const w=span();const p={service:field('service'),operation:field('operation'),status:field('status'),minDuration:field('minDuration'),maxDuration:field('maxDuration'),tag:field('tag'),limit:field('limit')||20};
 if(!w.live){p.start=w.from*1e6;p.end=w.until*1e6}
 let found;try{found=await get('/api/netra/search',p)}catch(error){if(current())show(form,el('p',{class:'bad',role:'alert'},error.message));return}
 if(!current())return;
 const most=Math.max(...found.traces.map(t=>t.duration_us),1);
 show(form,el('div',{class:'card'},el('h2',{},`${found.traces.length} traces`,el('span',{class:'tag'},`searched in ${us(found.took_us)}`),marked?el('span',{class:'tag'},'one is marked: choose another to compare'):null),
  el('div',{class:'scroll'},el('table',{id:'found'},el('thead',{},el('tr',{},...['begun','service','operation',''].map(t=>el('th',{class:'l',scope:'col'},t)),...['duration','spans','errors',''].map(t=>el('th',{scope:'col'},t)))),
  el('tbody',{},found.traces.map(t=>el('tr',{class:marked===t.trace?'on':''},el('td',{class:'l'},clock(t.start_us)),el('td',{class:'l'},cut(t.service,30)),el('td',{class:'l'},link('trace/'+t.trace,{},cut(t.operation||'(no name)',60))),
   el('td',{class:'l'},[t.is_error&&'failed',t.is_slow&&'slow',t.is_rare&&'rare',t.is_odd&&'odd'].filter(Boolean).map(x=>el('span',{class:'tag'+(x==='failed'?' bad':'')},x))),el('td',{},us(t.duration_us)),el('td',{},t.spans),el('td',{class:t.errors?'bad':''},t.errors),
   el('td',{},marked&&marked!==t.trace?link(`compare/${marked}/${t.trace}`,{},'compare'):el('button',{onclick:()=>{marked=marked===t.trace?null:t.trace;draw()}},marked===t.trace?'unmark':'mark'))))))),
  found.traces.length?null:el('p',{class:'dim'},'Nothing like that is here, or not any more.')));
}
const tagOf=(s,...keys)=>s.tags.find(t=>keys.includes(t.key))?.value;
const protocolOf=s=>tagOf(s,'db.system.name','db.system','messaging.system','rpc.system.name','rpc.system')||(tagOf(s,'http.request.method','http.method','http.status_code','http.response.status_code')?'http':'');
async function drawTrace(path,q,again,current){
 const id=decodeURIComponent(path.split('/')[1]||'');const t=await get('/api/netra/trace/'+encodeURIComponent(id));if(!current())return;
 const total=Math.max(t.duration_us,1);const critical=t.spans.reduce((s,x)=>s+x.critical.reduce((a,[f,u])=>a+u-f,0),0);
 const netra=t.spans.reduce((s,x)=>s+(+tagOf(x,'netra.overhead_us')||0),0);
 const by=new Map();for(const x of t.spans)for(const[f,u]of x.critical)by.set(x.service,(by.get(x.service)||0)+u-f);
 const copy=async form=>{const p=form==='otlp'?`/api/netra/trace/${t.trace}/otlp`:`/api/traces/${t.trace}`;const text=JSON.stringify(await get(p),null,1);try{await navigator.clipboard.writeText(text);$('state').textContent='copied'}catch{window.open(p)}};
 let most=500;
 const fall=el('div',{class:'fall card',role:'list','aria-label':'Waterfall'});
 const rows=()=>{fall.replaceChildren();for(const x of t.spans.slice(0,most))fall.append(el('div',{role:'listitem'},row(x,total)));if(t.spans.length>most)fall.append(el('button',{onclick:()=>{most+=2000;rows()}},`${t.spans.length-most} more`))};rows();
 show(el('div',{class:'card'},el('h2',{},'trace ',t.trace),el('dl',{},el('dt',{},'begun'),el('dd',{},new Date(t.start_us/1000).toISOString()),el('dt',{},'took'),el('dd',{},us(t.duration_us),` · ${t.spans.length} spans`,t.duplicates?` · ${t.duplicates} came twice`:''),el('dt',{},'critical path'),el('dd',{},[...by].sort((a,b)=>b[1]-a[1]).slice(0,8).map(([s,n])=>el('span',{class:'tag'},`${cut(s,24)} ${us(n)} (${share(n/Math.max(critical,1))})`))),netra?el('dt',{},'netra itself'):null,netra?el('dd',{},us(netra),' in all'):null),
  el('p',{},el('button',{onclick:()=>copy('jaeger')},'copy as Jaeger JSON'),' ',el('button',{onclick:()=>copy('otlp')},'copy as OTLP JSON'),' ',el('button',{onclick:()=>{marked=t.trace;location.hash='traces'}},'mark, to compare'))),fall);
}
function row(x,total){
 const percent=n=>(100*n/total).toFixed(3)+'%';
 const bar=el('span',{class:'bar'});bar.style.left=percent(x.start_us);bar.style.width=percent(x.duration_us);bar.style.background=x.is_error?'var(--bad)':colour(x.service);
 const crit=x.critical.map(([f,u])=>{const c=el('span',{class:'crit'});c.style.left=percent(f);c.style.width=percent(u-f);return c});
 const overhead=+tagOf(x,'netra.overhead_us')||0;let own=null;if(overhead){own=el('span',{class:'netra',title:`netra's own share: ${us(overhead)}`});own.style.left=percent(x.start_us);own.style.width=percent(Math.min(overhead,x.duration_us))}
 const took=el('span',{class:'took'},us(x.duration_us));const end=x.start_us+x.duration_us;if(end/total<.85)took.style.left=percent(end);else if(x.start_us/total>.15)took.style.right=percent(total-x.start_us);else{took.classList.add('in');took.style.right=percent(total-end)}
 const who=el('span',{class:'who'},x.is_error?el('b',{class:'bad'},'✗ '):null,el('b',{},cut(x.service,24)),' ',cut(x.name,60),el('span',{class:'dim'},' '+x.kind+(protocolOf(x)?' · '+protocolOf(x):'')),x.marks.length?el('span',{class:'tag bad'},'odd'):null);
 who.style.paddingLeft=6+Math.min(x.depth,20)*12+'px';
 const head=el('button',{class:'row','aria-expanded':'false','aria-label':seen(`${x.service} ${x.name}, ${x.kind}, begins after ${us(x.start_us)}, takes ${us(x.duration_us)}${x.is_error?', failed':''}`),onclick:()=>{const open=head.getAttribute('aria-expanded')==='true';head.setAttribute('aria-expanded',String(!open));if(open)head.nextSibling.remove();else head.after(more(x))}},who,el('span',{class:'time'},bar,own,crit,took));
 return head;
}
function more(x){
 const pairs=list=>el('dl',{},list.flatMap(t=>[el('dt',{},t.key),el('dd',{},t.value)]));const rule=tagOf(x,'netra.rule'),join=tagOf(x,'netra.join');
 return el('div',{class:'more'},x.marks.map(m=>el('p',{class:'bad'},m)),el('p',{},`span ${x.id} · critical ${us(x.critical.reduce((s,[f,u])=>s+u-f,0))}`,rule?` · rule ${rule}`:'',join?` · joined by ${join}`:''),el('h3',{},'Tags'),pairs(x.tags),x.logs.length?el('h3',{},'Events'):null,...x.logs.map(l=>el('div',{},el('span',{class:'dim'},clock(l.timestamp)),pairs(l.fields))),
  x.links.length?el('h3',{},'Links'):null,...x.links.map(l=>link('trace/'+l.traceID,{},l.traceID)),el('h3',{},'Process'),pairs(x.process));
}
async function drawCompare(path,q,again,current){
 const ids=path.split('/').slice(1,3);const both=await Promise.all(ids.map(id=>get('/api/netra/trace/'+id)));if(!current())return;
 const sums=both.map(t=>{const m=new Map();for(const x of t.spans){const k=x.service+'\n'+x.name+'\n'+x.kind;const s=m.get(k)||{count:0,us:0,critical:0,errors:0};s.count++;s.us+=x.duration_us;s.critical+=x.critical.reduce((a,[f,u])=>a+u-f,0);s.errors+=x.is_error;m.set(k,s)}return m});
 const none={count:0,us:0,critical:0,errors:0};const keys=[...new Set([...sums[0].keys(),...sums[1].keys()])];
 const rows=keys.map(k=>({k:k.split('\n'),a:sums[0].get(k)||none,b:sums[1].get(k)||none})).sort((x,y)=>Math.abs(y.b.critical-y.a.critical)-Math.abs(x.b.critical-x.a.critical));
 show(el('div',{class:'card'},el('h2',{},'two traces'),el('dl',{},...both.flatMap((t,i)=>[el('dt',{},'AB'[i]),el('dd',{},link('trace/'+t.trace,{},t.trace),` ${us(t.duration_us)}, ${t.spans.length} spans`)])),
  el('div',{class:'scroll'},el('table',{id:'compared'},el('thead',{},el('tr',{},...['service','operation','kind'].map(t=>el('th',{class:'l',scope:'col'},t)),...['spans A','spans B','time A','time B','critical A','critical B','difference'].map(t=>el('th',{scope:'col'},t)))),
   el('tbody',{},rows.map(({k,a,b})=>{const d=b.critical-a.critical;return el('tr',{},el('td',{class:'l'},cut(k[0],30)),el('td',{class:'l'},cut(k[1],50)),el('td',{class:'l'},k[2]),...[a.count,b.count].map(n=>el('td',{class:a.count!==b.count?'bad':''},n)),el('td',{},us(a.us)),el('td',{},us(b.us)),el('td',{},us(a.critical)),el('td',{},us(b.critical)),el('td',{class:d>0?'bad':d<0?'good':''},(d>0?'+':d<0?'−':'')+us(Math.abs(d))))}))))));
}

// ---- operations
let order='count';
async function drawOperations(path,q,again,current){
 const w=span(),service=q.get('service')||'';const[list,answer,course]=await Promise.all([services(),get('/api/netra/operations',{service,from:w.from,until:w.until}),get('/api/netra/course',{service,from:w.from,until:w.until})]);if(!current())return;
 const keys={count:o=>o.figures.count,errors:o=>o.figures.error_share,p50:o=>o.figures.p50_us,p99:o=>o.figures.p99_us,own:o=>o.own_us};
 const all=[...answer.operations].sort((a,b)=>keys[order](b)-keys[order](a));const chosen=q.get('op');const one=all.find(o=>o.kind+' '+o.service+' '+o.name===chosen);
 const head=(key,text)=>el('th',{scope:'col','aria-sort':order===key?'descending':'none'},el('button',{onclick:()=>{order=key;draw(true)}},text+(order===key?' ↓':'')));
 const focus=again&&document.activeElement?.name;
 show(el('div',{class:'card'},el('label',{},'service ',el('select',{name:'service',onchange:e=>{location.hash='operations'+(e.target.value?'?service='+encodeURIComponent(e.target.value):'')}},el('option',{value:''},'all'),list.map(s=>el('option',{value:s,selected:s===service},s)))),courseOf(course.course)),
  one?histogram(one):null,
  el('div',{class:'card scroll'},el('table',{id:'operations'},el('thead',{},el('tr',{},...['service','operation','kind','protocol'].map(t=>el('th',{class:'l',scope:'col'},t)),head('count','calls'),el('th',{scope:'col'},'/s'),head('errors','errors'),head('p50','p50'),el('th',{scope:'col'},'p95'),head('p99','p99'),head('own','own time'),el('th',{},''))),
   el('tbody',{},all.slice(0,500).map(o=>el('tr',{class:o===one?'on':''},el('td',{class:'l'},cut(o.service,30)),el('td',{class:'l'},link('operations',{...(service?{service}:{}),op:o.kind+' '+o.service+' '+o.name},cut(o.name,60))),el('td',{class:'l'},o.kind),el('td',{class:'l'},o.protocol),el('td',{},num(o.figures.count)),el('td',{},num(o.figures.rate)),el('td',{class:o.figures.errors?'bad':''},share(o.figures.error_share)),el('td',{},us(o.figures.p50_us)),el('td',{},us(o.figures.p95_us)),el('td',{},us(o.figures.p99_us)),el('td',{},us(o.own_us/Math.max(o.figures.count,1))),el('td',{},link('traces',{service:o.service,operation:o.name},'traces')))))))
  );
 if(focus)view.querySelector(`[name="${focus}"]`)?.focus();
}
function courseOf(slots){if(slots.length<2)return null;const rate=slots.map(s=>[s[0],s[2]/s[1],s[3]/s[1]]);const top=Math.max(...rate.map(r=>r[1]),.001),x0=rate[0][0],x1=Math.max(rate[rate.length-1][0],x0+1);const line=k=>rate.map((r,i)=>(i?'L':'M')+(300*(r[0]-x0)/(x1-x0)).toFixed(1)+' '+(58-54*r[k]/top).toFixed(1)).join('');
 return svg('svg',{class:'course',viewBox:'0 0 300 60',preserveAspectRatio:'none',role:'img','aria-label':`requests a second over time, ${num(top)} at most`},svg('path',{d:line(1),stroke:'var(--in)'}),svg('path',{d:line(2),stroke:'var(--bad)'}))}
function histogram(o){
 const most=Math.max(...o.classes.map(c=>c[1]),1),n=o.classes.length,w=600/Math.max(n,1);let low=0;
 const bars=o.classes.map(([upper,count],i)=>{const from=low;low=upper;const h=Math.max(1,86*count/most);const open=()=>{location.hash='traces?'+new URLSearchParams({service:o.service,operation:o.name,minDuration:Math.floor(Math.max(from,upper/1.25-1))+'us',maxDuration:upper+'us'})};
  return svg('g',{},svg('rect',{x:i*w+1,y:92-h,width:Math.max(1,w-2),height:h,tabindex:0,role:'link','aria-label':`${num(count)} up to ${us(upper)}: show such traces`,onclick:open,onkeydown:e=>{if(e.key==='Enter')open()}},svg('title',{},`${num(count)} up to ${us(upper)}`)),i%Math.ceil(n/10)===0?svg('text',{x:i*w+1,y:104},us(upper)):null)});
 return el('div',{class:'card'},el('h2',{},`${o.service} ${o.name}`,el('span',{class:'tag'},'choose a bar for traces that took so long')),svg('svg',{class:'hist',viewBox:'0 0 600 110',preserveAspectRatio:'xMinYMid meet',role:'group','aria-label':'Durations'},bars));
}

// ---- sidecars
const driver=s=>(s.series.find(([n])=>n.startsWith('netra_io_driver'))||[''])[0].split('"')[1]||'–';
const odd=s=>s.series.filter(([n])=>/netra_opaque_total|netra_rules_generation|result="(?!sent|recorded)/.test(n)).map(([n,v])=>n.replace(/^netra_|_total/g,'').replace(/\{\w+="([^"]*)".*/,' $1')+' '+num(v)).join(', ');
async function drawSidecars(path,q,again,current){
 const{sidecars}=await get('/api/netra/sidecars');if(!current())return;sidecars.sort((a,b)=>a.service<b.service?-1:a.service>b.service?1:b.spans-a.spans);
 show(el('div',{class:'card'},el('h2',{},`${sidecars.length} processes send spans`),el('div',{class:'scroll'},el('table',{id:'sidecars'},el('thead',{},el('tr',{},...['service','host','address','client','driver','opaque, dropped, rules'].map(t=>el('th',{class:'l',scope:'col'},t)),...['spans','failed','known for','silent for'].map(t=>el('th',{scope:'col'},t)),el('th',{class:'l',scope:'col'},'says of itself'))),
  el('tbody',{},sidecars.slice(0,1000).map(s=>el('tr',{},el('td',{class:'l'},link('operations',{service:s.service},cut(s.service,30))),el('td',{class:'l'},cut(s.host||'–',24)),el('td',{class:'l'},s.ip||'–'),el('td',{class:'l'},cut([s.client,s.version].filter(Boolean).join(' ')||'–',30)),el('td',{class:'l'},driver(s)),el('td',{class:'l wrap'},cut(odd(s)||'–',160)),el('td',{},num(s.spans)),el('td',{class:s.errors?'bad':''},num(s.errors)),el('td',{},age(s.since_s)),el('td',{class:s.silent_s>60?'bad':''},age(s.silent_s)),el('td',{class:'l wrap'},el('details',{},el('summary',{},`${s.tags.length} attributes`),el('dl',{},s.tags.flatMap(([k,v])=>[el('dt',{},k),el('dd',{},v)])))))))))));
}

for(const id of['last','until','against'])$(id).addEventListener('change',()=>{box=null;draw()});
$('now').addEventListener('click',()=>{$('until').value='';draw()});
$('window').addEventListener('submit',e=>e.preventDefault());
$('theme').addEventListener('click',()=>{const dark=getComputedStyle(document.documentElement).colorScheme==='dark';document.documentElement.dataset.theme=dark?'light':'dark'});
addEventListener('hashchange',()=>draw());
addEventListener('keydown',e=>{
 if(e.ctrlKey||e.metaKey||e.altKey)return;const typing=/^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName);
 if(e.key==='Escape'){if(typing)e.target.blur();else if(selected!=null){selected=null;draw(true)}else if(/^#(trace|compare)\//.test(location.hash))history.back();return}
 if(typing)return;const tab={1:'map',2:'traces',3:'operations',4:'sidecars'}[e.key];
 if(tab){location.hash=tab;view.focus()}else if(e.key==='/'){e.preventDefault();if(route().path!=='traces')location.hash='traces';setTimeout(()=>document.querySelector('[name=service]')?.focus(),150)}
});
draw();
