// The console's one script. Pages read without it; what it adds is the signing, and
// what makes a page pleasant to stay on: times that go on, ids that copy, news that
// announce themselves.

import { copyButtons } from "./copy";
import { decide } from "./decide";
import { enrol, login } from "./door";
import { keys } from "./keys";
import { live } from "./live";
import { clock, times } from "./times";

// What is current is in view, where a strip or a drawing is wider than the window.
for (const here of document.querySelectorAll(".side nav [aria-current]")) here.scrollIntoView({ block: "nearest", inline: "center" });
for (const drawing of document.querySelectorAll(".timeline")) drawing.parentElement?.scrollTo({ left: drawing.scrollWidth + 1000 });

times();
clock();
copyButtons();
keys();
live();
decide();
login();
enrol();
