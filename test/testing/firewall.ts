import { api, cluster, env, gateway, route, waf } from "portcullis";

const eu = cluster("eu", { ingress: env("EU") });

export default gateway({}, [
  api("shop", { hosts: ["shop.example.com"], policies: [waf({ rules: "../seclang/rules" })] }, [
    route("all", { path: "/*" }, { to: eu }),
  ]),
]);
