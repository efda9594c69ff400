(PAGE.kind === "run" ? runPage : comparePage)(document.getElementById("page"));
