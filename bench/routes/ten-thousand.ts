import { shop } from "./shop.ts";

export default shop({ services: 1_000 });
