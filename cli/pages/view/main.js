// Starts everything and opens what the page carries.

startColors();
startChoices();
startList();
startSlider();
startText();
startBars();
startChart();
startStats();
startPng();
startFiles();
startAlternatives();

startPlace();

const carried = JSON.parse(byId("files").textContent);
address.read();
openTexts(carried.files);
if (carried.live) startLive(carried.live);
